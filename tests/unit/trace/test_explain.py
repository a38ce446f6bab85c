"""From a number of a table to its run, seeds, prompts and images, and back by a command."""

import os
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distalign.__main__ import main
from distalign.config.fingerprint import fingerprint
from distalign.store.files import atomic_write_json, read_json, sha256_file
from distalign.store.parquet import CLASSIFIED, IMAGES, read_provenance, read_table, write_table
from distalign.trace.artefacts import locate

TABLE = "results/mini/tables/headline.md"
BIAS = "results/mini/bias/ours_gender/0/occupations.parquet"
NOT_NAMES = ["; rm -rf ~", "../../x", "$(touch x)", "`touch x`", "a b", "ü x", "a\nb", "-rf", "'\"", "a\x1b[2Jb"]


@pytest.fixture
def explain(clone: Path, capsys: pytest.CaptureFixture[str]):
    """What is printed; messages too, where the status is not 0."""

    def run(*arguments: str, status: int = 0) -> str:
        assert main(["explain", *arguments]) == status
        printed = capsys.readouterr()
        return printed.err if status else printed.out

    return run


def test_a_cell_says_its_run_seeds_prompts_and_how_to_make_it_again(explain) -> None:
    text = explain(TABLE, "--row", "Ours (Gender)", "--column", "bias/gender")
    assert "ours_gender, evaluation occupations, seeds 0" in text
    assert "read by  evaluation" in text
    assert "seed 0: mean over 3 prompts" in text
    for prompt in ("chef", "farm-worker", "judge"):
        assert f"{prompt:11}  0.0000  4 faces" in text
    assert "Computed again from the files below: the same." in text
    assert f"{fingerprint(read_json(Path('results/mini/runs/ours_gender/0/spec.json')))[:12]}" in text
    for place in ("bias", "  images", "classified"):
        assert f"{place}/ours_gender/0/occupations.parquet" in text
    assert "runs/ours_gender/0" in text
    assert "original/0" not in text
    again = next(line for line in text.splitlines() if line.strip().startswith("again"))
    assert again.split(maxsplit=1)[1] == (
        "snakemake --cores all --config preset=mini -- results/mini/tables/headline.md"
    )


def test_a_prompt_says_its_images(explain) -> None:
    text = explain(TABLE, "--row", "1", "--column", "bias/gender", "--prompt", "judge")
    images = read_table(Path("results/mini/images/original/0/occupations.parquet"), IMAGES, ["prompt_id", "noise_seed"])
    seeds = [row["noise_seed"] for row in images.to_pylist() if row["prompt_id"] == "judge"]
    for index, seed in enumerate(seeds):
        assert f"  {index}      {seed}         yes   female 0.90\n" in text
    assert "seed 0, prompt judge: a photo of the face of a judge, a person" in text


def test_who_reads_a_column_or_row(explain) -> None:
    assert "read by  loss" in explain(TABLE, "--row", "3", "--column", "bias/gender")
    text = explain(TABLE, "--row", "2", "--column", "frequency/gender=female@loss")
    assert "read by  loss" in text
    assert "value    0.5000" in text


def test_measures_of_other_kinds(explain) -> None:
    assert "A property of the method" in explain(TABLE, "--row", "1", "--column", "takes_target")
    assert "mean over 3 prompts" in explain(TABLE, "--row", "2", "--column", "clip_t")
    assert "Nothing was measured here." in explain(TABLE, "--row", "1", "--column", "seconds")


def test_a_table_as_a_whole_and_a_row(explain) -> None:
    text = explain(TABLE)
    assert "'A table'" in text
    assert "made by   rule render_table, stage tables" in text
    assert "peak memory" in text
    assert all(label in text for label in ("Original", "Ours (Gender)", "Ours (Inside the loss)"))
    assert "results/mini" in text
    row = explain(TABLE, "--row", "original")
    assert "bias/original/0/occupations.parquet" in row
    assert "ours_gender" not in row


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--row", "Theirs"], r"no row 'Theirs'. Name one by its number, its label, or its run:"),
        (["--row", "ours_gender"], "2 rows are called 'ours_gender'"),
        (["--row", "1", "--column", "bias/gendr"], "no column 'bias/gendr'. There are: bias/gender, frequency/"),
        (["--row", "1", "--column", "clip_t", "--prompt", "nurse"], "no prompt 'nurse'. There are: chef, farm-worker"),
        (["--prompt", "judge"], "give --row and --column too"),
    ],
)
def test_what_there_is_not_is_answered_by_what_there_is(explain, arguments: list[str], says: str) -> None:
    assert says in explain(TABLE, *arguments, status=2)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("results/mini/tables/headlin.md", "no such file. In .*tables there is: headline"),
        ("results/mino/tables/headline.md", "no such file. In .*results there is: mini"),
        ("config.yaml", "nothing that the workflow makes. Give a file below results/"),
        ("results/mini/classifiers/loss", "nothing is recorded of where it comes from"),
    ],
)
def test_files_that_say_nothing(explain, path: str, says: str) -> None:
    message = explain(path, status=2)
    assert re.search(says, message), message


def test_rows_are_of_tables_only(explain) -> None:
    assert "--row is for tables" in explain(BIAS, "--row", "1", status=2)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("results/mini/runs/ours_gender/0/adapter", "adapter and training of run ours_gender, seed 0"),
        ("results/mini/runs/ours_gender/0", "rule finetune, stage finetune"),
        ("results/mini/images/ours_gender/0/occupations.parquet", "seeds     noise 0"),
        ("results/mini/classified/ours_gender/0/occupations.parquet", "images/ours_gender/0/occupations.parquet"),
        ("results/mini/figures/frequencies.png", "bias/original/0/occupations.parquet"),
        ("results/mini/results.parquet", "every measurement of the paper's tables"),
    ],
)
def test_every_other_file_says_where_it_comes_from(explain, path: str, says: str) -> None:
    text = explain(path)
    assert says in text
    assert "again     snakemake --cores all --config preset=mini -- results/mini/" in text
    assert "torch" in text


def test_a_checkpoint_is_its_runs(explain) -> None:
    state = Path("results/mini/runs/ours_gender/0/state/checkpoint-000001.json")
    atomic_write_json(state, {})
    text = explain(str(state))
    assert "checkpoints of run ours_gender, seed 0" in text
    assert text.count("results/mini/runs/ours_gender/0/adapter") == 1


def test_inputs_are_found_and_looked_at(explain) -> None:
    text = explain("results/mini/runs/ours_gender/0", "--settings")
    assert "classifiers/loss" in text
    assert "prompts/mini_occupations (mini_occupations.json)" in text
    assert "CHANGED" not in text
    assert "\nsettings\n  method: adjusted_dft\n" in text
    Path("results/mini/classifiers/loss/model.safetensors").write_bytes(b"another")
    assert "CHANGED SINCE" in explain("results/mini/runs/ours_gender/0")


def test_a_number_of_other_files_is_told(explain) -> None:
    path = Path("results/mini/classified/ours_gender/0/occupations.parquet")
    schema = CLASSIFIED(dict.fromkeys(("loss", "evaluation", "reader"), ("gender", "race", "age")))
    table = read_table(path, schema)
    index = table.column_names.index("clip_t")
    changed = table.set_column(index, schema.field(index), pa.array([0.9] * table.num_rows, pa.float32()))
    write_table(path, changed, schema, read_provenance(path))
    text = explain(TABLE, "--row", "2", "--column", "clip_t")
    assert "The files that are there now give 0.9000" in text
    assert "CHANGED SINCE" in text


def test_a_copy_of_a_file_says_what_it_knows(explain, tmp_path: Path) -> None:
    copy = tmp_path / "copy.parquet"
    copy.write_bytes(Path(BIAS).read_bytes())
    text = explain(str(copy))
    classified = sha256_file(Path("results/mini/classified/ours_gender/0/occupations.parquet"))
    assert "made by stage bias" in text
    assert f"classified, sha256 {classified[:12]}" in text
    pq.write_table(read_table(copy, pq.read_schema(copy)).replace_schema_metadata(None), copy)
    assert "nothing that the workflow makes" in explain(str(copy), status=2)


@pytest.mark.parametrize("name", NOT_NAMES)
def test_no_name_reaches_a_shell_unquoted(explain, name: str) -> None:
    """The configuration takes no such names (tests/unit/config); files may have them all the same."""
    folder = os.path.normpath(f"results/mini/runs/{name}/0")
    Path(folder).parent.mkdir(parents=True, exist_ok=True)
    Path("results/mini/runs/ours_gender/0").rename(folder)
    if "results/mini/runs" not in folder:  # `../../x` leads out of the results, where nothing is known
        assert "nothing that the workflow makes" in explain(folder, status=2)
        return
    artefact = locate(Path(folder))
    assert shlex.split(artefact.again)[-1] == f"{folder}/adapter"
    again = next(line for line in explain(folder).splitlines() if line.strip().startswith("again"))
    assert "\x1b" not in again
    words = shlex.split(again)
    assert words[:7] == ["again", "snakemake", "--cores", "all", "--config", "preset=mini", "--"]
    assert len(words) == 8


def test_no_secret_is_printed(explain, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Path("results/mini/runs/ours_gender/0/provenance.json")
    content = read_json(record)
    content["spec"]["method"] = "planted-0123456789abcdef"
    atomic_write_json(record, content)
    assert "planted-0123456789abcdef" in explain(str(record.parent), "--settings")
    monkeypatch.setenv("HF_TOKEN", "planted-0123456789abcdef")
    text = explain(str(record.parent), "--settings")
    assert "planted" not in text
    assert "method: [HF_TOKEN]" in text
    assert "planted" not in explain("results/planted-0123456789abcdef", status=2)
