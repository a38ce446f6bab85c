"""The whole workflow, real at every station, with the smoke preset's budget."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from distalign.present.claims import CLAIMS
from distalign.store.parquet import BIAS, GRADIENT_STUDY, IMAGES, RESULTS, TRAIN_LOG, read_provenance, read_table
from helpers.workflow import ROOT, copy_project, planned, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(1800)]  # minutes on a busy machine
SMOKE = ("--config", "preset=smoke")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which the smoke preset ran to the end; read only."""
    project = copy_project(tmp_path_factory.mktemp("smoke") / "distalign")
    result = snakemake(project, *SMOKE)
    assert result.returncode == 0, result.stdout + result.stderr
    return project


def test_everything_is_made_once(project: Path) -> None:
    assert planned(project, *SMOKE) == {}


def test_tables_come_in_every_format(project: Path) -> None:
    tables = project / "results/smoke/tables"
    for table in ("comparison", "headline", "headline_readers"):
        for suffix in ("parquet", "csv", "md", "tex", "html", "txt"):
            assert (tables / f"{table}.{suffix}").stat().st_size > 0
    text = (tables / "comparison.md").read_text()
    assert text.count("Ours") == 3
    assert ".67" in text  # the paper's number beside ours


def test_claims_are_decided(project: Path) -> None:
    rows = read_table(project / "results/smoke/claims.parquet", CLAIMS).to_pylist()
    by_claim = {row["claim"]: row for row in rows if row["check"] == 0}
    measured = by_claim["gender_bias"]
    assert measured["n"] > 2
    assert measured["low"] <= measured["effect"] <= measured["high"]
    assert measured["reason"] is None
    assert by_claim["better_for_gender"]["verdict"] == "undecided"
    assert "run debiasvl_gender is not in config.yaml" in by_claim["better_for_gender"]["reason"]
    page = (project / "results/smoke/claims.md").read_text()
    assert all(row["sentence"] in page for row in rows)
    assert "Claims of the paper" in (project / "results/smoke/claims.html").read_text()


def test_results_agree_with_themselves(project: Path, tmp_path: Path) -> None:
    results, reference = project / "results/smoke/results.parquet", tmp_path / "smoke.parquet"
    for arguments, says in ((["--keep"], "rows kept"), ([], "the results agree")):
        command = [sys.executable, "-m", "distalign.measure.compare", str(results), str(reference), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert says in done.stdout


def test_figures_come_in_every_format(project: Path) -> None:
    for figure in ("training_curves", "frequencies", "contact_sheet", "gradient_loss", "gradient_magnitude"):
        for suffix in ("pdf", "svg", "png", "parquet"):
            assert (project / f"results/smoke/figures/{figure}.{suffix}").stat().st_size > 1000


def test_every_run_starts_from_the_same_noise(project: Path) -> None:
    original, ours = (
        read_table(project / f"results/smoke/images/{run}/0/occupations.parquet", IMAGES, ["image_id", "noise_seed"])
        for run in ("original", "ours_gender")
    )
    assert original.equals(ours)
    assert len(set(original["noise_seed"].to_pylist())) == original.num_rows


def test_files_hold_what_they_should(project: Path) -> None:
    run = project / "results/smoke/runs/ours_gender/0"
    assert (run / "adapter/pytorch_lora_weights.safetensors").stat().st_size > 0
    assert json.loads((run / "spec.json").read_text())["align"] == {"gender": {"female": 0.5, "male": 0.5}}
    log = read_table(run / "train_log.parquet", TRAIN_LOG)
    assert set(log["phase"].to_pylist()) == {"train", "validation"}
    bias = read_table(project / "results/smoke/bias/ours_gender/0/occupations.parquet", BIAS)
    assert set(bias["classifier"].to_pylist()) == {"loss", "evaluation", "reader"}
    results = read_table(project / "results/smoke/results.parquet", RESULTS)
    assert set(results["run"].to_pylist()) == {"original", "ours_gender", "ours_race", "ours_gender_race"}


def test_quality_of_every_run_has_its_floor(project: Path) -> None:
    metrics = ("kid", "fd_dino", "floor/kid", "floor/fd_dino")
    results = read_table(project / "results/smoke/results.parquet", RESULTS).to_pylist()
    rows = [row for row in results if row["metric"] in metrics]
    assert len(rows) == 4 * len(metrics)
    assert all(row["low"] <= row["value"] <= row["high"] and row["n"] == 2 * 24 for row in rows)
    assert {row["prompt_id"] for row in rows} == {None}
    real = {row["value"] for row in rows if row["metric"] == "floor/fd_dino"}
    (floor,) = real  # one reference for all runs
    assert all(row["value"] > floor for row in rows if row["metric"] == "fd_dino")
    assert len(list((project / "results/smoke/reference").glob("*.parquet"))) == 1


def test_gradient_studies_fill_their_grid(project: Path) -> None:
    losses, sizes = (
        read_table(project / f"results/smoke/gradient_studies/{name}.parquet", GRADIENT_STUDY)
        for name in ("gradient_loss", "gradient_magnitude")
    )
    assert losses.num_rows == 3 * 2 * 2 * 2  # estimators, runs, iterations, loss and its gradient's norm
    assert sizes.num_rows == 2 * 3 * 3 * 2 * 3  # models, guidances, estimators, runs, steps


def test_files_open_without_our_code(project: Path) -> None:
    query = f"select run, attribute, avg(bias) from '{project}/results/smoke/bias/**/*.parquet' group by all"
    assert len(duckdb.sql(query).fetchall()) == 4 * 7


def test_files_know_where_they_come_from(project: Path) -> None:
    for path in (project / "results/smoke").rglob("*.parquet"):
        provenance = read_provenance(path)
        if "classifiers" not in path.parts:  # shipped
            assert provenance["fingerprint"], path
            assert provenance["versions"]["torch"], path


def test_every_job_left_a_log_and_a_benchmark(project: Path) -> None:
    results = project / "results/smoke"
    logs = {path.relative_to(results / "logs").with_suffix("") for path in (results / "logs").rglob("*.log")}
    benchmarks = {
        path.relative_to(results / "benchmarks").with_suffix("") for path in (results / "benchmarks").rglob("*.tsv")
    }
    assert logs == benchmarks
    assert len(logs) >= 30


def test_headline_prints_the_table_and_the_pictures(project: Path) -> None:
    result = snakemake(project, "headline", *SMOKE)
    assert result.returncode == 0, result.stderr
    assert "Ours (Gender and race)" in result.stdout
    pictures = re.findall(r"^picture: (\S+)$", result.stdout, flags=re.M)
    assert pictures
    assert all((project / picture).is_file() for picture in pictures)


def test_report_is_made(project: Path) -> None:
    result = snakemake(project, "--report", "report.zip", *SMOKE)
    assert result.returncode == 0, result.stderr
    assert (project / "report.zip").stat().st_size > 100_000


def test_shipped_weights_are_verified(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "distalign")
    (project / "resources").unlink()
    shutil.copytree(ROOT / "resources", project / "resources")
    weights = next((project / "resources/miniworld/clip").glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    result = snakemake(project, "results/smoke/encoders/training/clip", *SMOKE)
    assert result.returncode != 0
    assert "sha256" in result.stdout + result.stderr
    assert str(weights.name) in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert not (project / "results/smoke/encoders/training/clip").exists()
