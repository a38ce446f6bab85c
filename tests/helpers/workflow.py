"""Run Snakemake on a copy of the workflow."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("Snakefile", "config.yaml", "rules", "workflow_scripts", "presets", "profiles", "report", "lib")
# Every job, in no time: outputs of the right kind, holding nothing.
STUB = """
from pathlib import Path

for output in map(Path, snakemake.output):
    if output.suffix[1:].isalpha():
        output.write_text("made by a stub")
    else:
        output.mkdir(parents=True)
        (output / "stub").touch()
"""


def first_rows() -> dict[str, Any]:
    """The configuration as it is for the paper's first table alone: more is added from time to time."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    runs = ["original", "ours_gender", "ours_race", "ours_gender_race"]
    figures = {name: config["figures"][name] for name in ("training_curves", "frequencies", "contact_sheet")}
    for figure in figures.values():
        figure["runs"] = [run for run in figure["runs"] if run in runs]
        figure.pop("labels", None)
    tables = {name: config["tables"][name] for name in ("headline", "headline_readers", "comparison")}
    for table in tables.values():
        table["rows"] = [row for row in table["rows"] if row["run"] in runs]
        table["columns"] = table["columns"][:6]
    return config | {
        "runs": {name: config["runs"][name] for name in runs},
        "evaluations": {"occupations": config["evaluations"]["occupations"]},
        "tables": tables,
        "figures": figures,
        "gradient_studies": {},
    }


def copy_project(folder: Path, stubs: bool = False, whole: bool = False) -> Path:
    """The workflow in a folder of its own, with the configuration of `first_rows` or the `whole` one.

    With stubs, its jobs only pretend.
    """
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    (folder / "resources").symlink_to(ROOT / "resources")
    (folder / "envs").mkdir()
    shutil.copy(ROOT / "envs/distalign.yaml", folder / "envs")
    if not whole:
        (folder / "config.yaml").write_text(yaml.safe_dump(first_rows(), sort_keys=False))
    if stubs:
        for script in (folder / "workflow_scripts").glob("*.py"):
            script.write_text(STUB)
    return folder


def edit_yaml(path: Path, **changes: Any) -> None:
    """Set keys of a YAML file."""
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes, sort_keys=False))


def snakemake(folder: Path, *arguments: str, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "lib")}
    command = [sys.executable, "-m", "snakemake", "--cores", "all", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def planned(folder: Path, *arguments: str) -> dict[str, int]:
    """Number of jobs per rule that a dry run announces."""
    result = snakemake(folder, "--dry-run", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    table = re.search(r"^Job stats:\njob +count\n[- ]+\n(.*?)^total", result.stdout + result.stderr, re.M | re.S)
    if table is None:
        assert "Nothing to be done" in result.stdout + result.stderr, result.stdout + result.stderr
        return {}
    return {name: int(count) for name, count in (line.split() for line in table[1].splitlines())}


def submissions(folder: Path, *arguments: str) -> list[list[str]]:
    """The rules of every job that a dry run would submit to a cluster."""
    return [words[1:] for words in _watched(folder, "submissions.py", *arguments) if words[:1] == ["submitted:"]]


def needs(folder: Path, *arguments: str) -> dict[str, tuple[str, str]]:
    """Memory and minutes that a dry run gives the jobs of each rule, which are alike."""
    given = {tuple(words[1:]) for words in _watched(folder, "submissions.py", *arguments) if words[:1] == ["needs:"]}
    assert len({rule for rule, *_ in given}) == len(given)
    return {rule: (memory, minutes) for rule, memory, minutes in given}


def lines_executed(folder: Path, *arguments: str) -> int:
    """How many lines of this project a dry run executes."""
    return next(int(words[1]) for words in _watched(folder, "lines.py", *arguments) if words[:1] == ["executed:"])


def _watched(folder: Path, helper: str, *arguments: str) -> list[list[str]]:
    """The words of every line that a program beside this one prints of a dry run."""
    command = [sys.executable, str(ROOT / "tests/helpers" / helper), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder / "lib")}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return [line.split() for line in result.stdout.splitlines()]
