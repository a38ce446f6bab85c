"""`distalign` as a command: what it lists, how it ends, and `check`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distalign.__main__ import VERBS, main
from distalign.store.files import TIMESTAMP, atomic_write_json, sha256_tree
from distalign.store.parquet import IMAGES, read_provenance, read_table, write_table
from helpers.workflow import ROOT

RUN = "results/mini/runs/ours_gender/0"


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in VERBS)
    for verb in VERBS:
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])
        assert ended.value.code == 0
        assert f"distalign {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["explane"], ["explain"], ["diff", "a"]])
def test_wrong_use_is_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_no_verb_waits_for_torch() -> None:
    modules = ", ".join(f"distalign.trace.{verb}" for verb in VERBS)
    code = f"import sys, distalign.trace.cells, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_it_runs_as_a_module_and_ends_quietly_when_nobody_reads(clone: Path) -> None:
    command = f"{sys.executable} -m distalign explain results/mini/tables/headline.md | head -1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "lib")}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "tables/headline.md: table headline, 'A table'\n"
    assert done.stderr == ""


def test_check(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "results/mini/tables/headline.md", RUN]) == 0
    assert capsys.readouterr().out.startswith("inputs, and theirs: ")
    weights = Path(RUN, "adapter/pytorch_lora_weights.safetensors")
    weights.write_bytes(weights.read_bytes()[::-1])
    assert main(["check", "results/mini/tables/headline.md"]) == 1
    text = capsys.readouterr().out
    assert "CHANGED SINCE: adapter" in text
    assert "of which images/ours_gender/0/occupations.parquet is made" in text
    Path("results/mini/classified/original/0/occupations.parquet").unlink()
    assert main(["check", "results/mini/bias/original/0/occupations.parquet"]) == 0
    assert "not here: classified" in capsys.readouterr().out


@pytest.mark.parametrize("counted", [False, True])
def test_a_time_stamp_of_snakemake_is_no_change(clone: Path, capsys: pytest.CaptureFixture[str], counted: bool) -> None:
    """Nor is it for results that were recorded when it counted."""
    images, adapter = Path("results/mini/images/ours_gender/0/occupations.parquet"), Path(RUN, "adapter")
    record = read_provenance(images)
    record["inputs"]["adapter"] = sha256_tree(adapter, stamped=counted)
    write_table(images, read_table(images, IMAGES), IMAGES, record)
    for change in (Path.touch, Path.unlink):
        change(adapter / TIMESTAMP)
        assert main(["check", str(images)]) == 0
        assert "CHANGED" not in capsys.readouterr().out
    weights = adapter / "pytorch_lora_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[::-1])
    assert main(["check", str(images)]) == 1


def test_check_of_what_says_nothing(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    atomic_write_json(Path("results/mini/classifiers/loss/card.md"), {})
    assert main(["check", "results/mini/classifiers/loss/card.md"]) == 2
    assert "says nothing of what it was made from" in capsys.readouterr().err
