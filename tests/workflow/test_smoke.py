"""The whole workflow, real at every station, with the smoke preset's budget."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import duckdb
import pytest
import yaml

from distalign.config.fingerprint import fingerprint
from distalign.present.claims import CLAIMS
from distalign.store.parquet import BIAS, GRADIENT_STUDY, IMAGES, RESULTS, TRAIN_LOG, read_provenance, read_table
from helpers.browser import Page, browser, find_chromium
from helpers.workflow import ROOT, copy_project, edit_yaml, first_rows, planned, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(1800)]  # minutes on a busy machine
SMOKE = ("--config", "preset=smoke")
TRADEOFF = {"kind": "tradeoff", "title": "Trade-off", "tables": ["comparison"], "bias": ["bias/gender", "bias/race"]}
# Whether an element is there, has a size, and is what one sees and clicks at where it stands.
ON_SCREEN = """it => {
  if (!it) return false;
  const box = it.getBoundingClientRect();
  const [left, right] = [Math.max(box.left, 0), Math.min(box.right, innerWidth)];
  const [top, bottom] = [Math.max(box.top, 0), Math.min(box.bottom, innerHeight)];
  return right - left > 100 && bottom - top > 50
    && it.contains(document.elementFromPoint((left + right) / 2, (top + bottom) / 2));
}"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which the smoke preset ran to the end; read only."""
    project = copy_project(tmp_path_factory.mktemp("smoke") / "distalign")
    figures = first_rows()["figures"] | {"tradeoff": TRADEOFF}
    studies = yaml.safe_load((ROOT / "config.yaml").read_text())["gradient_studies"]
    edit_yaml(project / "config.yaml", figures=figures, gradient_studies=studies)
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
    for arguments, says in ((["--keep"], " rows, from "), ([], "the results agree")):
        command = [sys.executable, "-m", "distalign.measure.compare", str(results), str(reference), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert says in done.stdout


def test_figures_come_in_every_format(project: Path) -> None:
    figures = ("training_curves", "frequencies", "contact_sheet", "tradeoff", "gradient_loss", "gradient_magnitude")
    for figure in figures:
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
    results = read_table(project / "results/smoke/results.parquet", RESULTS).to_pylist()
    measured = {(row["run"], row["seed"], row["evaluation"]) for row in results}
    by_metric = {
        metric: {(row["run"], row["seed"], row["evaluation"]): row for row in results if row["metric"] == metric}
        for metric in ("kid", "fd_dino", "floor/kid", "floor/fd_dino")
    }
    for rows in by_metric.values():
        assert rows.keys() == measured
        assert all(row["low"] <= row["value"] <= row["high"] and row["prompt_id"] is None for row in rows.values())
    for key, row in by_metric["fd_dino"].items():
        assert row["value"] > by_metric["floor/fd_dino"][key]["value"]  # three steps make no portrait


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


def test_a_cell_is_explained_down_to_its_images(project: Path) -> None:
    table, run = "results/smoke/tables/headline.html", "results/smoke/runs/ours_gender/0"
    text = distalign(project, "explain", table, "--row", "ours_gender", "--column", "bias/gender")
    assert "Computed again from the files below: the same." in text
    assert f"settings {fingerprint(json.loads((project / run / 'spec.json').read_text()))[:12]}" in text
    assert "CHANGED" not in text
    assert "not here" not in text
    images = read_table(project / "results/smoke/images/ours_gender/0/occupations.parquet", IMAGES).to_pylist()
    prompt = images[0]["prompt_id"]
    asked = ("--row", "ours_gender", "--column", "bias/gender", "--prompt", prompt)
    text = distalign(project, "explain", table, *asked)
    assert all(str(image["noise_seed"]) in text for image in images if image["prompt_id"] == prompt)
    for file in (
        "figures/frequencies.svg",
        "results.parquet",
        "claims.md",
        "runs/ours_gender/0/adapter",
        "bank.safetensors",
    ):
        assert "snakemake --cores all --config preset=smoke" in distalign(project, "explain", f"results/smoke/{file}")
    assert distalign(project, "check", table, "results/smoke/claims.md").startswith("inputs, and theirs: ")


def test_results_are_identical_with_themselves_and_two_runs_are_not(project: Path) -> None:
    assert distalign(project, "diff", "results/smoke", "results/smoke").startswith("identical: ")
    runs = [f"results/smoke/runs/{run}/0" for run in ("ours_gender", "ours_race")]
    text = distalign(project, "diff", *runs, status=1)
    assert "align.race: unset → " in text
    assert "bias/race" in text


def test_a_bundle_of_the_results_is_reproducible_and_verified(project: Path, tmp_path: Path) -> None:
    bundles = [tmp_path / "a.tar.gz", tmp_path / "b.tar.gz"]
    for bundle in bundles:
        distalign(project, "archive", "results/smoke", "-o", str(bundle))
        assert "all as the manifest says" in distalign(project, "verify", str(bundle))
    assert bundles[0].read_bytes() == bundles[1].read_bytes()


def distalign(project: Path, *arguments: str, status: int = 0) -> str:
    """What a verb prints on the finished results."""
    environment = {**os.environ, "PYTHONPATH": str(project / "lib")}
    command = [sys.executable, "-m", "distalign", *arguments]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


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


@pytest.fixture(scope="module")
def report(project: Path) -> Path:
    """The report's page, unpacked as a reader would."""
    result = snakemake(project, "--report", "report.zip", *SMOKE)
    assert result.returncode == 0, result.stdout + result.stderr
    with ZipFile(project / "report.zip") as packed:
        packed.extractall(project / "unpacked")
    return project / "unpacked/report/report.html"


def test_report_holds_tables_figures_cards_and_provenance(report: Path) -> None:
    names = {path.name for path in report.parent.rglob("*")}
    assert {"comparison.html", "frequencies.svg", "contact_sheet.svg", "training_curves.svg"} <= names
    assert {"classifier_loss.html", "classifier_evaluation.html", "provenance.html"} <= names
    page = next(report.parent.rglob("provenance.html")).read_text()
    for word in ("torch", "finetune", "ours_gender_race", "images_per_prompt"):
        assert word in page


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium on the PATH (Debian: apt install chromium)")
def test_report_shows_the_comparison_table_and_a_figure(report: Path) -> None:
    with browser(str(find_chromium())) as page:
        page.open(report.as_uri())
        page.until("[...document.querySelectorAll('#app a')].some(it => it.innerText.includes('comparison'))")
        open_result(page, "Tables", "comparison")
        table = "/comparison.html"
        page.until(f"({ON_SCREEN})(document.querySelector('iframe[src$=\"{table}\"]'))")
        page.until(f"({ON_SCREEN})(document.querySelector('table'))", table)
        cells = "[...document.querySelectorAll('tbody tr')].map(row => row.cells[2].dataset.value)"
        before = page.run(cells, table)
        page.run("document.querySelectorAll('thead button')[2].click()", table)
        assert page.run(cells, table) == sorted(before, key=float)
        assert len(before) == 4
        open_result(page, "Figures", "frequencies")
        picture = "document.querySelector('img[src$=\"/frequencies.svg\"]')"
        page.until(f"{picture}?.complete && ({ON_SCREEN})({picture})")
        assert min(page.run(f"[{picture}.naturalWidth, {picture}.naturalHeight]")) > 100
        assert page.complaints == []
        assert [address for address in page.requests if not address.startswith(("file:", "data:"))] == []


def open_result(page: Page, category: str, label: str) -> None:
    """Go to a result as a reader does: home, category, eye."""
    if page.run("Boolean(document.querySelector('nav nav a'))"):
        page.click("document.querySelector('nav nav a')")
    page.click(f"[...document.querySelectorAll('nav li a')].find(it => it.innerText.trim() === '{category}')")
    rows = "[...document.querySelectorAll('nav tbody tr')]"
    page.click(f"{rows}.find(it => it.cells[0].innerText.trim() === '{label}')?.querySelector('a')")


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
