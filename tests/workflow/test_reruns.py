"""What a change makes Snakemake do again: that, and nothing else. Real runs, with jobs that pretend."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.workflow import copy_project, edit_yaml, planned, snakemake

pytestmark = pytest.mark.workflow
AGAIN = {"aggregate_results": 1, "render_table": 1, "check_claims": 1, "render_provenance": 1, "all": 1}
MEASURED = {"compute_bias": 1, "compute_quality": 1}
BOTH = {name: 2 * count for name, count in MEASURED.items()}
CONFIG: dict[str, Any] = {
    "preset": "smoke",
    "seeds": [0],
    "runs": {
        "original": {"method": "original"},
        "ours_gender": {"method": "adjusted_dft", "align": {"gender": "uniform"}, "train": ["text_encoder"]},
    },
    "evaluations": {"occupations": {"prompts": "test"}},
    "tables": {
        "comparison": {
            "title": "Comparison",
            "evaluation": "occupations",
            "columns": ["bias/gender", "clip_t"],
            "rows": [{"run": "original", "label": "Original"}, {"run": "ours_gender", "label": "Ours"}],
        }
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study, run to the end by stubs; read only."""
    project = copy_project(tmp_path_factory.mktemp("made") / "distalign", stubs=True)
    (project / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    result = snakemake(project)
    assert result.returncode == 0, result.stdout + result.stderr
    return project


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    """A copy of it to change, file times included."""
    return Path(shutil.copytree(made, tmp_path / "distalign", symlinks=True))


def config_of(study: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((study / "config.yaml").read_text())
    return content


def test_second_run_does_nothing(study: Path) -> None:
    assert planned(study) == {}


def test_new_row_schedules_its_own_jobs(study: Path) -> None:
    tables = config_of(study)["tables"]
    tables["comparison"]["rows"].append({"run": {"from": "ours_gender", "rank": 4}, "label": "rank 4"})
    edit_yaml(study / "config.yaml", tables=tables)
    own = {"finetune": 1, "generate_images": 1, "classify_images": 1, **MEASURED}
    assert planned(study) == own | AGAIN
    result = snakemake(study)
    assert result.returncode == 0, result.stdout + result.stderr
    assert planned(study) == {}


def test_ablations_decide_no_claim(study: Path) -> None:
    row = {"run": {"from": "ours_gender", "rank": 4}, "label": "rank 4"}
    tables = config_of(study)["tables"]
    edit_yaml(study / "config.yaml", tables=tables | {"ablation_rank": {**tables["comparison"], "rows": [row]}})
    assert planned(study) == {}
    assert planned(study, "ablations")["render_table"] == 1


def test_another_bound_decides_claims_anew_and_nothing_else(study: Path) -> None:
    resources = (study / "resources").resolve()
    (study / "resources").unlink()
    shutil.copytree(resources, study / "resources")  # file times included
    assert planned(study) == {}
    claims = yaml.safe_load((study / "resources/claims.yaml").read_text())["claims"]
    claims["gender_bias"]["checks"][0]["below"] = 0.5
    edit_yaml(study / "resources/claims.yaml", claims=claims)
    assert planned(study) == {"check_claims": 1, "all": 1}


def unset_gradient_option(runs: dict[str, Any]) -> None:
    runs["ours_gender"]["gradient"] = {"steps": None}


def order_of_keys(runs: dict[str, Any]) -> None:
    runs["ours_gender"] = dict(reversed(runs["ours_gender"].items()))


def checkpoints(runs: dict[str, Any]) -> None:
    runs["ours_gender"]["checkpoint_every"] = 2


def kept_graphs(runs: dict[str, Any]) -> None:
    runs["ours_gender"]["gradient"] = {"keep_graph": True}


@pytest.mark.parametrize("change", [unset_gradient_option, order_of_keys, checkpoints, kept_graphs])
def test_what_changes_no_result_reruns_nothing(study: Path, change: Callable[[dict[str, Any]], None]) -> None:
    runs = config_of(study)["runs"]
    change(runs)
    edit_yaml(study / "config.yaml", runs=runs)
    assert planned(study) == {}


def test_micro_batch_reruns_nothing(study: Path) -> None:
    edit_yaml(study / "presets/smoke.yaml", micro_batch={"sample": 3, "gradient": 2})
    assert planned(study) == {}


def test_setting_of_a_run_reruns_that_run(study: Path) -> None:
    runs = config_of(study)["runs"]
    runs["ours_gender"]["learning_rate"] = 1e-4
    edit_yaml(study / "config.yaml", runs=runs)
    assert planned(study) == {"finetune": 1, "generate_images": 1, "classify_images": 1, **MEASURED} | AGAIN


def test_evaluation_setting_reruns_no_finetuning(study: Path) -> None:
    edit_yaml(study / "config.yaml", evaluations={"occupations": {"prompts": "test", "images_per_prompt": 3}})
    assert planned(study) == {"generate_images": 2, "classify_images": 2, **BOTH} | AGAIN


def test_label_of_a_row_reruns_the_table(study: Path) -> None:
    tables = config_of(study)["tables"]
    tables["comparison"]["rows"][0]["label"] = "Stable Diffusion"
    edit_yaml(study / "config.yaml", tables=tables)
    assert planned(study) == {"render_table": 1, "render_provenance": 1, "all": 1}


def test_stage_version_reruns_the_stage_and_what_follows(study: Path) -> None:
    stages = study / "lib/distalign/store/stages.py"
    stages.write_text(re.sub('"classify": [0-9]+', '"classify": 99', stages.read_text()))
    assert planned(study) == {"classify_images": 2, **BOTH} | AGAIN


def test_comment_in_a_script_reruns_nothing(study: Path) -> None:
    with (study / "workflow_scripts/finetune.py").open("a") as script:
        script.write("# a comment\n")
    assert planned(study) == {}


def test_library_edit_alone_reruns_nothing(study: Path) -> None:
    with (study / "lib/distalign/measure/bias.py").open("a") as module:
        module.write("# a comment\n")
    assert planned(study) == {}
