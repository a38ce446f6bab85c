"""The check command, and the generated reference page and schema."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from distalign.config import __main__ as command
from distalign.config import docs

from .conftest import REPOSITORY


def test_check_passes_for_every_preset(own_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["check", "--preset", "all", "--directory", str(own_root)]) == 0
    assert capsys.readouterr().out.count("no problems") == 3


def test_check_prints_problems_and_ends_with_1(own_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = own_root / "config.yaml"
    path.write_text(path.read_text().replace("from: ours_gender,", "from: ours_gendr,"))
    assert command.main(["check", "--directory", str(own_root)]) == 1
    assert "runs.ours_race.from" in capsys.readouterr().err


def test_check_of_a_directory_without_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["check", "--directory", str(tmp_path)]) == 1
    assert "config.yaml cannot be read: No such file" in capsys.readouterr().err


def test_generated_files_are_those_of_the_models() -> None:
    assert docs.main(["--check", "--directory", str(REPOSITORY)]) == 0, f"run {docs.COMMAND} --write"


def test_drift_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert docs.main(["--write", "--directory", str(tmp_path)]) == 0
    assert docs.main(["--check", "--directory", str(tmp_path)]) == 0
    with (tmp_path / docs.PAGE_FILE).open("a") as page:
        page.write("by hand")
    assert docs.main(["--check", "--directory", str(tmp_path)]) == 1
    assert f"{docs.PAGE_FILE} differs" in capsys.readouterr().err


def test_every_key_is_described() -> None:
    for name, definition in json.loads(docs.render()[docs.SCHEMA_FILE])["$defs"].items():
        for key, field in definition.get("properties", {}).items():
            assert field.get("description") or "$ref" in field, (name, key)


def test_the_configuration_needs_no_torch_and_no_snakemake() -> None:
    code = "import sys, distalign.config.study, distalign.prompts; print({'torch', 'snakemake'} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"
