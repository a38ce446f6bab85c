"""Hours and disk of the tables, against counts made by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from distalign.config.files import read_yaml
from distalign.config.models import RunSettings
from distalign.config.study import Study, load_study
from distalign.present.hours import Work, differentiated_share, disk, main, table_work

ROOT = Path(__file__).parents[3]
SPEEDS = ["--images-per-second", "9", "--seconds-per-iteration", "7"]


@pytest.fixture(scope="module")
def study() -> Study:
    whole = load_study({**read_yaml(ROOT / "config.yaml"), "preset": "sd15"}, ROOT)
    return replace(whole, tables={name: whole.tables[name] for name in ("headline", "headline_readers")})


def test_counts_are_those_of_the_configuration(study: Study) -> None:
    first, again = table_work(study)
    assert first.finetunings == 2
    assert first.total.updates == 10_000 + 15_000
    assert first.total.images == 3 * 50 * 160  # runs, test occupations, images of each
    originals = 10_000 * 24 + 15_000 * 32
    validations = (10_000 // 200 + 1) * 10 * 32 + (15_000 // 200 + 1) * 10 * 48
    assert first.total.training_images == originals + validations
    steps = (3 * 50 * 160) * 30 + originals * 21 + validations * 23
    assert first.total.sampled == pytest.approx(steps / 25)
    assert first.total.finetuned == pytest.approx(10_000 + 15_000 * 32 / 24)
    assert again.total == first.total  # the same runs and images, read by others
    assert again.added == Work()


def test_hours_and_disk(study: Study) -> None:
    work = Work(images=1000, training_images=0, updates=10, sampled=3600, finetuned=7200)
    assert work.hours(images_per_second=2, seconds_per_iteration=0.5) == pytest.approx(0.5 + 1)
    works = table_work(study)
    without = disk(works, 0, 512, 33)
    assert disk(works, 2, 512, 33) - without == pytest.approx(2 * 5 * 0.033)
    assert disk(works, 0, 1024, 33) - without == pytest.approx(24_000 * 3 * 512**2 * 1.7 / 1e9)  # four times the pixels


def test_sparse_gradients_count_less(study: Study) -> None:
    def share(**gradient: object) -> float:
        run: RunSettings = study.runs["ours_gender"]
        return differentiated_share(run.model_copy(update={"gradient": run.gradient.model_copy(update=gradient)}), 20)

    assert share() == 1
    assert share(steps=5) == 0.25
    assert share(steps=50) == 1
    assert share(last=2) == 0.1
    assert share(truncate="random") == 0.5


def test_it_prints_a_table_and_the_disk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    assert main([*SPEEDS, "--tables", "headline"]) == 0
    shown = capsys.readouterr().out
    assert "| `headline` | 2 | 25,000 |" in shown
    assert "Disk: about" in shown
    assert main([*SPEEDS, "--tables", "nothing"]) == 1
    assert "'nothing' is unknown" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--images-per-second", "0", "--seconds-per-iteration", "7"])
