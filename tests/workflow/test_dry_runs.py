"""The workflow resolves for every preset, is clean, and refuses a wrong configuration before any job."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distalign.config.models.preset import RULES
from helpers.workflow import ROOT, copy_project, edit_yaml, lines_executed, needs, planned, snakemake, submissions

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("project") / "distalign")


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With everything that config.yaml has."""
    return copy_project(tmp_path_factory.mktemp("paper") / "distalign", whole=True)


@pytest.mark.parametrize("preset", ["mini", "smoke", "sd15"])
def test_the_whole_paper_and_its_ablations_resolve(paper: Path, preset: str) -> None:
    config = yaml.safe_load((paper / "config.yaml").read_text())
    ablations = [name for name in config["tables"] if name.startswith("ablation")]
    jobs = planned(paper, "--config", f"preset={preset}")
    assert jobs["render_table"] == len(config["tables"]) - len(ablations)
    rows = [row for name, table in config["tables"].items() if name not in ablations for row in table["rows"]]
    inline = sum(isinstance(row["run"], dict) for row in rows)
    named = len({row["run"] for row in rows if isinstance(row["run"], str)} - {"original"})
    assert named <= jobs["finetune"] + jobs["fit_method"] <= named + inline
    assert planned(paper, "ablations", "--config", f"preset={preset}")["render_table"] == len(ablations)


@pytest.mark.parametrize("preset", ["mini", "smoke", "sd15"])
def test_every_preset_resolves(project: Path, preset: str) -> None:
    jobs = planned(project, "--config", f"preset={preset}")
    assert jobs["finetune"] == 3
    assert jobs["generate_images"] == jobs["classify_images"] == jobs["compute_bias"] == 4
    assert jobs["render_table"] == 3
    assert jobs["check_claims"] == 1
    assert (jobs.get("compute_quality", 0), jobs.get("make_reference", 0)) == ((0, 0) if preset == "sd15" else (4, 1))


@pytest.mark.parametrize(("preset", "early"), [("mini", 1), ("smoke", 1), ("sd15", 0)])
def test_gradient_studies_train_an_early_model_where_a_preset_has_one(paper: Path, preset: str, early: int) -> None:
    jobs = planned(paper, "figures", "--config", f"preset={preset}")
    assert jobs["study_gradients"] == jobs["plot_gradient_study"] == 2
    assert jobs.get("train_early_backbone", 0) == early


def test_released_adapters_are_converted_and_nothing_is_finetuned(paper: Path) -> None:
    rows = ("--configfile", "resources/released/rows.yaml", "--config", "preset=sd15")
    jobs = planned(paper, "results/sd15/tables/released.md", "results/sd15/tables/released_concepts.md", *rows)
    assert jobs["convert_adapter"] == 8
    assert not {"finetune", "fit_method", "compute_originals", "build_bank"} & jobs.keys()
    assert jobs["generate_images"] == 8 + 1 + 2 * 3  # the first evaluation has the original too, the other three two


def test_runs_of_one_plan_share_their_originals(project: Path) -> None:
    assert planned(project)["compute_originals"] == 1


def test_headline_needs_its_own_runs_only(project: Path) -> None:
    jobs = planned(project, "headline")
    assert jobs["finetune"] == 2
    assert jobs["headline"] == 1
    assert "aggregate_results" not in jobs
    assert "study_gradients" not in jobs


def test_quality_is_measured_for_what_shows_it(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "quality")
    row = {"run": "original", "label": "Original"}
    table = {"title": "Quality", "evaluation": "occupations", "columns": ["clip_t"], "rows": [row]}
    shown = {**table, "columns": ["clip_t", "kid"]}
    edit_yaml(project / "config.yaml", tables={"plain": table, "quality": shown}, figures={})
    figures = {
        name: {"kind": "tradeoff", "title": name, "tables": ["plain"], "bias": ["bias/gender"], "preservation": metric}
        for name, metric in (("likeness", "clip_t"), ("realism", "kid"))
    }
    edit_yaml(project / "config.yaml", figures=figures)
    assert "compute_quality" not in planned(project, "results/mini/figures/likeness.svg")
    assert planned(project, "results/mini/figures/realism.svg")["compute_quality"] == 1
    files = {name: f"results/mini/tables/{name}.csv" for name in ("plain", "quality")}
    assert "compute_quality" not in planned(project, files["plain"])
    jobs = planned(project, files["quality"])
    assert (jobs["compute_quality"], jobs["make_reference"]) == (1, 1)
    without = planned(project, files["quality"].replace("mini", "sd15"), "--config", "preset=sd15")
    assert "compute_quality" not in without


def test_fetch_obtains_what_comes_from_a_network_and_nothing_else(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "fetch")
    jobs = planned(project, "fetch", "--config", "preset=sd15")
    assert jobs == {"fetch": 1, "fetch_weights": 5 + 3}  # three classifiers begin with ImageNet weights
    assert planned(project, "fetch") == {"fetch": 1}  # of mini nothing comes from a network
    preset = yaml.safe_load((project / "presets/sd15.yaml").read_text())
    hub = {"source": "hub", "id": "owner/classifier", "revision": "0" * 40}
    preset["classifiers"]["loss"]["weights"] = hub
    preset["backbone"] = {"source": "directory", "path": "data/model"}
    edit_yaml(project / "presets/sd15.yaml", **preset)
    jobs = planned(project, "fetch", "--config", "preset=sd15")
    assert (jobs["fetch_weights"], jobs["fetch_classifier"]) == (4 + 2, 1)  # one classifier is ready


def test_after_fetch_no_job_needs_a_network(tmp_path: Path) -> None:
    """With everything that `fetch` makes in place, the rest of the workflow plans no download."""
    project = copy_project(tmp_path / "fetched")
    encoders = [f"encoders/{role}/{kind}" for role in ("training", "evaluation") for kind in ("clip", "dino")]
    initial = [f"initial/{name}" for name in ("loss", "loss_celeba", "evaluation")]
    for place in ("backbone", *encoders, *initial):
        (project / "results/sd15" / place).mkdir(parents=True)
    assert "fetch_weights" not in planned(project, "fetch", "--config", "preset=sd15")
    jobs = planned(project, "--config", "preset=sd15")
    assert jobs["fetch_weights"] == 1  # the face embedding, which is converted from a file
    assert jobs["finetune"] == 3


@pytest.mark.parametrize("target", ["tables", "figures", "classifiers", "pretrain"])
def test_targets_resolve(project: Path, target: str) -> None:
    assert target in planned(project, target)


def test_lint_is_clean(project: Path) -> None:
    result = snakemake(project, "--lint")
    assert result.returncode == 0, result.stdout + result.stderr


def test_format_is_clean() -> None:
    command = [sys.executable, "-m", "snakefmt", "--check", "Snakefile", "rules"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def rule_blocks() -> dict[str, str]:
    """The text of every rule by its name, also of those made of others (`use rule`)."""
    rules = "\n".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    blocks = re.split(r"^(?=rule |use rule )", rules, flags=re.M)[1:]
    return {re.match(r"(?:use rule \w+ as|rule) (\w+)", block)[1]: block for block in blocks}


def test_every_rule_says_what_the_house_asks_for() -> None:
    for name, block in rule_blocks().items():
        if "\n    output:" not in block or block.startswith("use "):
            continue
        for directive in ("log", "benchmark", "message", "resources", "conda", "script"):
            assert f"\n    {directive}:" in block, f"rule {name} has no {directive}"
        assert f"workflow_scripts/{name}.py" in block
        assert block.count("\n") <= 45, f"rule {name} is long"


def test_snakefile_and_scripts_are_short() -> None:
    assert len((ROOT / "Snakefile").read_text().splitlines()) <= 60
    for script in (ROOT / "workflow_scripts").glob("*.py"):
        text = script.read_text()
        assert len(text.splitlines()) <= 80, script.name
        assert "snakemake: Snakemake" in text, script.name
        assert "__future__" not in text, script.name


def test_library_knows_nothing_of_snakemake() -> None:
    for module in (ROOT / "lib").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) snakemake", module.read_text(), flags=re.M), module


def test_wrong_configuration_is_refused_whole(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "wrong", whole=True)
    text = (project / "config.yaml").read_text()
    text = text.replace("{from: ours_gender, align: {race: uniform}}", "{from: ours_gendre, align: {race: uniform}}")
    text = text.replace("{run: original, label: Original, paper: table1/original}", "{run: orignal, label: Original}")
    (project / "config.yaml").write_text(text.replace("train: [text_encoder]", "rnk: 4"))
    result = snakemake(project)
    assert result.returncode == 1
    message = result.stdout + result.stderr
    assert "Traceback" not in message
    for found, wanted in (("ours_gendre", "ours_gender"), ("orignal", "original"), ("rnk", "rank")):
        assert found in message
        assert wanted in message
    assert not (project / "results").exists()


def test_unknown_preset_is_refused(project: Path) -> None:
    result = snakemake(project, "--config", "preset=mni")
    assert result.returncode == 1
    assert "mini" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_configuration_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "broken")
    (project / "presets/mini.yaml").write_text("a: [1\n")
    result = snakemake(project)
    assert result.returncode == 1
    assert "presets/mini.yaml" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_figures_of_many_runs_bring_their_evaluations(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "figures")
    config = yaml.safe_load((project / "config.yaml").read_text())
    evaluations = {**config["evaluations"], "guidance_2": {"guidance": 2.0}}
    figures = {
        "tradeoff": {"kind": "tradeoff", "title": "Trade-off", "tables": ["comparison"], "bias": ["bias/gender"]},
        "ablation_guidance": {
            "kind": "guidance_sweep",
            "title": "Guidance",
            "runs": ["original", "ours_gender"],
            "evaluations": ["occupations", "guidance_2"],
        },
    }
    tables = {name: table for name, table in config["tables"].items() if not name.startswith("ablation")}
    edit_yaml(project / "config.yaml", evaluations=evaluations, figures=figures, tables=tables)
    paper = planned(project)
    assert paper["plot_figure"] == 1
    ablations = planned(project, "ablations")
    assert ablations["plot_figure"] == 1
    assert ablations["finetune"] == 1
    assert ablations["generate_images"] == ablations["compute_bias"] == 4
    headline = planned(project, "headline")
    assert "plot_figure" not in headline  # the comparison has a run of its own


def test_row_with_a_run_in_place_is_one_entry(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "row")
    row = {"run": {"from": "ours_gender", "rank": 4}, "label": "rank 4"}
    table = {"title": "Rank", "evaluation": "occupations", "columns": ["bias/gender"], "rows": [row]}
    edit_yaml(project / "config.yaml", tables={"ablation_rank": table}, figures={})
    jobs = planned(project, "ablations")
    assert jobs["finetune"] == 1
    assert jobs["generate_images"] == 2  # and the original's, which similarity is measured to


@pytest.mark.parametrize("preset", ["mini", "sd15"])
def test_the_paper_is_dozens_of_slurm_jobs(paper: Path, preset: str) -> None:
    """All that is made of an evaluation's images is one of them."""
    jobs = planned(paper, "--config", f"preset={preset}")
    submitted = submissions(paper, "--workflow-profile", "profiles/slurm", "--config", f"preset={preset}")
    assert len(submitted) < 130
    for rule in ("finetune", "fit_method"):
        assert submitted.count([rule]) == jobs[rule]
    of_images = [rules for rules in submitted if "generate_images" in rules]
    assert len(of_images) == jobs["generate_images"]
    for rule in ("classify_images", "compute_bias", "compute_quality"):
        assert sum(rules.count(rule) for rules in of_images) == jobs.get(rule, 0)


@pytest.mark.parametrize("profile", ["slurm", "slurm-test"])
def test_every_rule_that_asks_for_a_gpu_goes_where_there_are_some(profile: str) -> None:
    resources = yaml.safe_load((ROOT / f"profiles/{profile}/config.yaml").read_text())["set-resources"]
    blocks = rule_blocks()
    asking = {name for name, block in blocks.items() if "\n        gpu=" in block}
    used = {name: re.match(r"use rule (\w+)", block) for name, block in blocks.items()}
    asking |= {name for name, base in used.items() if base and base[1] in asking}
    assert {"finetune", "build_reader", "study_gradients"} <= asking <= resources.keys()
    for asked in resources.values():
        assert (asked["slurm_partition"], asked["tasks_per_gpu"]) == ("gpu", 0)


def test_a_preset_says_what_a_job_of_a_rule_needs(tmp_path: Path) -> None:
    """A profile may still say otherwise, and where nobody says anything the rule's own numbers hold."""
    project = copy_project(tmp_path / "needs")
    mini = {"finetune": {"mem_mb": 5000, "runtime": 90}, "generate_images": {"runtime": 20}, "fit_method": None}
    edit_yaml(project / "presets/mini.yaml", job={"threads": 1, "gpu": 0, "needs": mini})
    edit_yaml(project / "presets/smoke.yaml", job={"gpu": 1, "needs": {"finetune": {"mem_mb": 4000}}})
    given = needs(project, "--set-resources", "generate_images:runtime=30", "--config", "preset=smoke")
    assert given["finetune"] == ("4000", "90")
    assert given["generate_images"] == ("16000", "30")
    assert given["classify_images"] == ("16000", "240")


def test_a_preset_may_name_the_rules_that_ask_it_and_no_others() -> None:
    asking = {name: re.findall(r'\*\*needs\("(\w+)"', block) for name, block in rule_blocks().items()}
    assert {name: asked for name, asked in asking.items() if asked} == {name: [name] for name in RULES}


def test_a_row_costs_a_dry_run_the_same_however_many_there_are(tmp_path: Path) -> None:
    """Lines of our own that are executed, loops counted: thousands of runs are planned as fast as dozens, per run."""

    def lines(count: int) -> int:
        project = copy_project(tmp_path / str(count))
        rows = [{"run": {"from": "ours_gender", "learning_rate": (i + 1) * 1e-5}} for i in range(count)]
        table = {"title": "Many", "evaluation": "occupations", "columns": ["bias/gender"], "rows": rows}
        edit_yaml(project / "config.yaml", seeds=[0, 1], tables={"many": table}, figures={})
        return lines_executed(project)

    few, more, most = map(lines, (10, 20, 40))
    assert (most - more) / 20 == pytest.approx((more - few) / 10, rel=0.02)


def test_unknown_run_among_the_targets_is_refused(paper: Path) -> None:
    result = snakemake(paper, "results/mini/images/ours_gendre/0/occupations.parquet", "--dry-run")
    assert result.returncode == 1
    assert "no run of this name: ours_gendre; did you mean 'ours_gender'?" in result.stdout + result.stderr
