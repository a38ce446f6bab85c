"""In what two results differ: nothing, a setting, a number within its interval or not, a file."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from distalign.__main__ import main
from distalign.store.files import TIMESTAMP, atomic_write_json, read_json
from distalign.store.parquet import IMAGES, RESULTS, TRAIN_LOG, read_provenance, read_table, write_table

MINE = Path("results/mini")
Diff = Callable[..., str]


@pytest.fixture
def diff(clone: Path, capsys: pytest.CaptureFixture[str]) -> Diff:
    def run(*arguments: str | Path, status: int) -> str:
        assert main(["diff", *map(str, arguments)]) == status
        printed = capsys.readouterr()
        return printed.err if status == 2 else printed.out

    return run


@pytest.fixture
def other(clone: Path, tmp_path: Path) -> Path:
    """The results of another clone."""
    shutil.copytree(clone / MINE, tmp_path / "other/results/mini")
    return tmp_path / "other/results/mini"


def shift(path: Path, metric: str, by: float) -> None:
    """Move a metric of ours_gender in results, its interval included."""
    table = read_table(path, RESULTS)
    rows = table.to_pylist()
    for row in rows:
        if (row["run"], row["metric"], row["prompt_id"]) == ("ours_gender", metric, None):
            row.update({name: None if row[name] is None else row[name] + by for name in ("value", "low", "high")})
    write_table(path, pa.Table.from_pylist(rows, RESULTS), RESULTS, read_provenance(path))


def test_the_same_is_identical(diff: Diff, other: Path) -> None:
    run, table = "runs/ours_gender/0", "tables/headline.parquet"
    for name in ("", run, table, "results.parquet", "images/original/0/occupations.parquet"):
        text = diff(MINE / name, other / name, status=0)
        assert text.startswith("identical: the settings of ")
        assert " 0 numbers" not in text


def test_a_setting(diff: Diff, other: Path) -> None:
    record = other / "runs/ours_gender/0/provenance.json"
    content = read_json(record)
    content["spec"]["loss"]["image"] = 99
    content["spec"]["rank"] = None
    content["code"]["commit"] = "0123456789abcdef"
    atomic_write_json(record, content)
    before = read_json(MINE / "runs/ours_gender/0/provenance.json")["spec"]
    for name in ("", "runs/ours_gender/0"):
        text = diff(MINE / name, other / name, status=1)
        assert f"  loss.image: {before['loss']['image']:g} → 99" in text
        assert f"  rank: {before['rank']} → unset" in text
        assert "commit 0123456789ab" in text
        assert "they differ: in 2 settings and 0 of" in text


def test_a_number_within_its_interval_and_one_far_from_it(diff: Diff, other: Path) -> None:
    shift(other / "results.parquet", "bias/race", 0.2)
    shift(other / "results.parquet", "clip_t", 0.001)
    text = diff(MINE, other, status=1)
    assert "numbers of results.parquet: 4 differ" in text  # bias/race of three readers
    race = next(line for line in text.splitlines() if "bias/race" in line and "evaluation  bias" in line)
    assert race.split()[-4:-2] == ["+0.2", "apart,"]
    similarity = next(line for line in text.splitlines() if " clip_t " in line)
    assert similarity.split()[-2:] == ["+0.001", "within"]
    assert "3 numbers of whole runs are further apart" in text


def test_another_machine_alone_is_no_difference(diff: Diff, other: Path) -> None:
    record = other / "runs/ours_gender/0/provenance.json"
    content = read_json(record)
    content["hardware"]["processor"] = "another"
    content["versions"]["torch"] = "0.1"
    atomic_write_json(record, content)
    text = diff(MINE / "runs/ours_gender/0", other / "runs/ours_gender/0", status=0)
    assert "another" in text
    assert "→ 0.1" in text
    assert "identical" in text


def test_files_that_one_side_has_and_other_weights(diff: Diff, other: Path) -> None:
    (other / "tables/headline.parquet").rename(other / "tables/more.parquet")
    (other / "runs/ours_gender/0/adapter/pytorch_lora_weights.safetensors").write_bytes(b"other")
    text = diff(MINE, other, status=1)
    assert "only in results/mini: tables/headline.parquet" in text
    assert f"only in {other}: tables/more.parquet" in text
    assert "runs/ours_gender/0/adapter: other weights" in text


def test_a_copy_without_snakemakes_time_stamps_is_identical(diff: Diff, other: Path) -> None:
    stamps = list(other.rglob(TIMESTAMP))
    assert stamps
    for stamp in stamps:
        stamp.unlink()
    assert diff(MINE, other, status=0).startswith("identical")


def test_two_runs_of_one_study(diff: Diff, clone: Path) -> None:
    """Their settings, their training and what was measured of them."""
    shutil.copytree(MINE / "runs/ours_gender", MINE / "runs/original")  # measured as `original`
    text = diff(MINE / "runs/ours_gender/0", MINE / "runs/original/0", status=1)
    line = next(line for line in text.splitlines() if "occupations  evaluation  bias/gender" in line)
    assert line.split()[3:6] == ["0.0000", "1.0000", "+1"]


def test_rows_of_other_files(diff: Diff, other: Path) -> None:
    path = other / "images/original/0/occupations.parquet"
    table = read_table(path, IMAGES)
    seeds = pa.array([7, *table["noise_seed"].to_pylist()[1:]], pa.int64())
    index = IMAGES.get_field_index("noise_seed")
    write_table(path, table.set_column(index, IMAGES.field(index), seeds), IMAGES, read_provenance(path))
    text = diff(MINE / "images/original/0/occupations.parquet", path, status=1)
    assert "noise_seed in 1 of 12 rows by up to 93" in text
    write_table(path, table.slice(1), IMAGES, read_provenance(path))
    assert "rows 12 and 11" in diff(MINE / "images/original/0/occupations.parquet", path, status=1)


def test_seconds_do_not_count(diff: Diff, other: Path) -> None:
    path = other / "runs/ours_gender/0/train_log.parquet"
    table = read_table(path, TRAIN_LOG)
    rows = table.to_pylist()
    for row in rows:
        row["value"] = 1000.0 if row["metric"] == "seconds" else row["value"]
    write_table(path, pa.Table.from_pylist(rows, TRAIN_LOG), TRAIN_LOG, read_provenance(path))
    diff(MINE, other, status=0)


@pytest.mark.parametrize(
    ("after", "says"),
    [
        ("results/mini/nothing", "results/mini/nothing: no such file or folder. Give a finished run"),
        ("results/mini/tables", "results/mini/tables: neither of these"),
        (
            "results/mini/runs/ours_gender/0",
            "results/mini is a folder of results, results/mini/runs/ours_gender/0 is a run",
        ),
    ],
)
def test_what_cannot_be_compared(diff: Diff, after: str, says: str) -> None:
    assert says in diff(MINE, after, status=2)
