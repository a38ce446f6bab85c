"""The headline of the mini preset, with the numbers it must reach: on occupations no finetuning has seen."""

from pathlib import Path

import pytest

from distalign.present.tables import CELLS
from distalign.store.parquet import read_table
from helpers.workflow import copy_project, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.full, pytest.mark.timeout(5400)]
Numbers = dict[tuple[str, str | None, str], float]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Numbers:
    """(run, classifier, metric) -> value, of the headline's tables and the comparison."""
    project = copy_project(tmp_path_factory.mktemp("headline") / "distalign")
    result = snakemake(project, "tables", timeout=5400)
    assert result.returncode == 0, result.stdout + result.stderr
    return {key: value for path in (project / "results/mini/tables").glob("*.parquet") for key, value in _cells(path)}


def _cells(path: Path) -> list[tuple[tuple[str, str | None, str], float]]:
    rows = read_table(path, CELLS).to_pylist()
    return [((row["run"], row["classifier"], row["metric"]), row["value"]) for row in rows]


BARS = [
    ("ours_gender", "bias/gender", 0.5),
    ("ours_race", "bias/race", 0.5),
    ("ours_gender_race", "bias/gender", 0.5),
    ("ours_gender_race", "bias/race", 0.5),
    ("ours_gender_race", "bias/gender+race", 0.55),
]


@pytest.mark.parametrize(("run", "metric", "share"), BARS)
def test_bias_falls(numbers: Numbers, run: str, metric: str, share: float) -> None:
    assert numbers[run, "evaluation", metric] <= share * numbers["original", "evaluation", metric]


@pytest.mark.parametrize("run", ["original", "ours_gender", "ours_gender_race"])
@pytest.mark.parametrize("metric", ["bias/gender", "bias/race"])
def test_observers_agree(numbers: Numbers, run: str, metric: str) -> None:
    read = [numbers[run, classifier, metric] for classifier in ("evaluation", "loss", "reader")]
    assert max(read) - min(read) <= 0.08


@pytest.mark.parametrize(("run", "metric"), [("ours_gender", "bias/race"), ("ours_race", "bias/gender")])
def test_the_other_attribute_is_not_made_worse(numbers: Numbers, run: str, metric: str) -> None:
    assert numbers[run, "evaluation", metric] <= numbers["original", "evaluation", metric] + 0.10


@pytest.mark.parametrize("run", ["ours_gender", "ours_gender_race"])
def test_age_is_not_made_worse(numbers: Numbers, run: str) -> None:
    assert numbers[run, "evaluation", "bias/age"] <= numbers["original", "evaluation", "bias/age"] + 0.10


@pytest.mark.parametrize("run", ["ours_gender", "ours_gender_race"])
@pytest.mark.parametrize(("metric", "within"), [("face_found", 0.03), ("concept_readable", 0.05), ("clip_t", 0.02)])
def test_images_stay_good(numbers: Numbers, run: str, metric: str, within: float) -> None:
    assert numbers[run, None, metric] >= numbers["original", None, metric] - within


def test_the_original_is_biased(numbers: Numbers) -> None:
    assert numbers["original", "evaluation", "bias/gender"] >= 0.5
    assert numbers["original", "evaluation", "bias/race"] >= 0.33
