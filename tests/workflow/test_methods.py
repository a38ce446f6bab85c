"""Every method as a row, through the whole workflow, with the smoke preset's budget."""

from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from distalign.config.methods import METHODS
from distalign.diffusion.pipeline import load_pipeline
from helpers.released import CHECKPOINT, checkpoint_members, write_zip
from helpers.workflow import ROOT, copy_project, edit_yaml, first_rows, planned, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(1800)]
SMOKE = ("--config", "preset=smoke")
TABLES = "results/smoke/tables/methods"
# Evaluations of the U-Net per image, relative to plain sampling: all rows align gender.
COSTS = {"concept_algebra": 2.5, "fair_diffusion": 2, "doodl": 3}
ALL = [name for name, method in METHODS.items() if not method.adapter]
FEW = ["original", "debiasvl", "uce", "doodl"]  # fitted in closed form; by looking at images; looking while it samples
SETTINGS = {"fair_diffusion": {"lookup": "all"}}
FINETUNED = ("ours_gender", "ours_prefix", "short_gender", "short_prefix")  # runs that other finetunings start from


def other_finetunings() -> dict[str, Any]:
    """The rows of config.yaml that finetune with other gradients or losses than ours, by labels in small letters."""
    rows = yaml.safe_load((ROOT / "config.yaml").read_text())["tables"]["comparison_variants"]["rows"]
    own = [row for row in rows if row.get("group") == "Finetuning" and row["run"] not in FINETUNED]
    return {"".join(filter(str.isalnum, row["label"].lower())): row["run"] for row in own}


@pytest.fixture(scope="module", params=["few", pytest.param("all", marks=pytest.mark.methods)])
def methods(request: pytest.FixtureRequest) -> list[str]:
    return FEW if request.param == "few" else ALL


@pytest.fixture(scope="module")
def project(methods: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which a row of each method ran to the end; read only."""
    project = copy_project(tmp_path_factory.mktemp("methods") / "distalign")
    runs: dict[str, Any] = {"original": {"method": "original"}}
    for name in methods[1:]:
        runs[name] = {"method": name, "align": {"gender": "uniform"}, "settings": SETTINGS.get(name, {})}
    if methods == ALL:
        named = yaml.safe_load((ROOT / "config.yaml").read_text())["runs"]
        runs |= {name: named[name] for name in FINETUNED} | other_finetunings()
    runs["searched"] = {"from": "debiasvl", "search": {"strength": [1, 500]}}
    members = checkpoint_members(load_pipeline(ROOT / "resources/miniworld/backbone"))
    archive = write_zip(project / "data/exp-1-checkpoints.zip", members).relative_to(project)
    settings = {"archive": str(archive), "folder": CHECKPOINT}
    runs["released"] = {"method": "released", "align": {"gender": "uniform"}, "settings": settings}
    columns = ["bias/gender", "clip_t", "face_found", "takes_target", "inference_cost", "inference_seconds", "seconds"]
    table = {
        "title": "Methods",
        "evaluation": "few",
        "columns": columns,
        "rows": [{"run": name} for name in runs if name not in FINETUNED],
    }
    evaluations = first_rows()["evaluations"] | {"few": {"at_most": 2}}
    edit_yaml(project / "presets/smoke.yaml", job={"threads": 1, "gpu": 0})  # as many jobs side by side as fit
    edit_yaml(project / "config.yaml", runs=runs, evaluations=evaluations, tables={"methods": table}, figures={})
    result = snakemake(project, f"{TABLES}.parquet", *SMOKE)
    assert result.returncode == 0, result.stdout + result.stderr
    return project


def test_every_method_has_a_row(project: Path, methods: list[str]) -> None:
    rows = duckdb.sql(f"select run, metric, value from '{project / TABLES}.parquet'").fetchall()
    values = {(run, metric): value for run, metric, value in rows}
    for name in methods:
        assert values[name, "inference_cost"] == pytest.approx(COSTS.get(name, 1), abs=1e-9), name
        assert values[name, "inference_seconds"] > 0
        assert values[name, "takes_target"] == METHODS[name].takes_target_with(SETTINGS.get(name, {}))
        assert 0 <= values[name, "clip_t"] <= 1
        assert (values[name, "seconds"] is None) == (name == "original")
    text = (project / f"{TABLES}.md").read_text()
    assert "Takes a target" in text
    taking = [name for name in [*methods, "released"] if METHODS[name].takes_target_with(SETTINGS.get(name, {}))]
    assert text.count(" yes ") == len(taking) + (len(other_finetunings()) if methods == ALL else 0)


def test_a_released_adapter_has_a_row(project: Path) -> None:
    rows = duckdb.sql(f"select metric, value from '{project / TABLES}.parquet' where run = 'released'").fetchall()
    values = dict(rows)
    assert values["inference_cost"] == 1
    assert values["seconds"] is None  # it was not trained here
    assert (project / "results/smoke/runs/released/0/adapter/pytorch_lora_weights.safetensors").is_file()
    assert not (project / "results/smoke/logs/fit_method/released").exists()


def test_every_method_starts_from_the_original_s_noise_and_changes_its_images(
    project: Path, methods: list[str]
) -> None:
    images = project / "results/smoke/images"
    query = "select prompt_id, index, noise_seed, prompt, md5(image.bytes) from '{}' order by all"
    original = duckdb.sql(query.format(images / "original/0/few.parquet")).fetchall()
    assert len(original) == 4
    for name in [*methods[1:], "released", *(other_finetunings() if methods == ALL else ())]:
        own = duckdb.sql(query.format(images / f"{name}/0/few.parquet")).fetchall()
        assert [row[:4] for row in own] == [row[:4] for row in original]
        assert own != original, f"{name} changes nothing"


def test_a_search_is_logged(project: Path) -> None:
    log = project / "results/smoke/runs/searched/0/train_log.parquet"
    counted = duckdb.sql(f"select count(*) from '{log}' where metric = 'target_distance'").fetchall()
    assert counted == [(2,)]


def test_a_changed_setting_fits_again_and_a_new_row_of_another_does_not(project: Path) -> None:
    assert planned(project, f"{TABLES}.parquet", *SMOKE) == {}
    config = (project / "config.yaml").read_text()
    try:
        (project / "config.yaml").write_text(config.replace("strength:\n      - 1\n", "strength:\n      - 2\n"))
        jobs = planned(project, f"{TABLES}.parquet", *SMOKE)
        assert {rule: count for rule, count in jobs.items() if rule in ("fit_method", "generate_images")} == {
            "fit_method": 1,
            "generate_images": 1,
        }
    finally:
        (project / "config.yaml").write_text(config)
