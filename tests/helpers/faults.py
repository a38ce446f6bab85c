"""A study of one finetuning and one small table, to be disturbed, and what must be left of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from safetensors import safe_open

from helpers.workflow import copy_project, first_rows, snakemake

SMOKE = ("--config", "preset=smoke")
TWO_RANKS = ("--resources", "gpu=2", "--set-resources", "finetune:gpu=2")  # as profiles/slurm-test has it
RUN = Path("results/smoke/runs/ours_gender/0")
TABLES = Path("results/smoke/tables")


def small_study(folder: Path, iterations: int) -> Path:
    """A project whose target `tables` is one finetuning, and one table of it beside the original."""
    project = copy_project(folder)
    config: dict[str, Any] = first_rows()
    config["runs"] = {name: config["runs"][name] for name in ("original", "ours_gender")}
    config["evaluations"]["occupations"] |= {"at_most": 4}
    rows = [{"run": name, "label": name} for name in config["runs"]]
    table = {"title": "Small", "evaluation": "occupations", "columns": ["bias/gender", "clip_t"], "rows": rows}
    config |= {"tables": {"small": table}, "figures": {}}
    (project / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    preset = yaml.safe_load((project / "presets/smoke.yaml").read_text())
    preset["defaults"] |= {"iterations": iterations, "validate_every": iterations}
    (project / "presets/smoke.yaml").write_text(yaml.safe_dump(preset, sort_keys=False))
    return project


def prepare(project: Path) -> None:
    """Make what is there before the finetuning begins, and all of the original."""
    run(project, "tables", "--until", "compute_originals", "build_bank")
    run(project, "results/smoke/bias/original/0/occupations.parquet")


def run(project: Path, *arguments: str) -> str:
    """Run Snakemake to the end; what it said."""
    result = snakemake(project, *arguments, *SMOKE)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def copy_of(project: Path, folder: Path) -> Path:
    """The same project elsewhere, with all that is made, and when."""
    shutil.copytree(project, folder, symlinks=True)
    return folder


def tables(project: Path) -> dict[str, bytes]:
    """Every table in every format."""
    return {path.name: path.read_bytes() for path in sorted((project / TABLES).iterdir())}


def adapter(project: Path) -> dict[str, bytes]:
    """The files of the finetuned adapter."""
    files = sorted((project / RUN / "adapter").iterdir())
    return {path.name: path.read_bytes() for path in files if not path.name.startswith(".")}  # Snakemake's time stamp


def assert_whole(results: Path) -> int:
    """Read every file that has a final name, to its last byte; return how many."""
    count = 0
    for path in sorted(results.rglob("*")):
        parts = path.relative_to(results).parts
        if not path.is_file() or any(part.startswith(".") for part in parts):
            continue
        try:
            count += _read(path)
        except FileNotFoundError:
            continue  # replaced just now
        except Exception as error:
            raise AssertionError(f"{path} is torn: {error}") from error
    return count


def _read(path: Path) -> int:
    if path.suffix == ".parquet":
        pq.read_table(path)
    elif path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                file.get_tensor(name)
    elif path.suffix == ".json":
        json.loads(path.read_text())
    else:
        return 0
    return 1


@contextmanager
def started(project: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Snakemake in a process group of its own, that says what it does in `log.txt`; killed at the end."""
    command = [sys.executable, "-m", "snakemake", *arguments, *SMOKE]
    variables = {**os.environ, "PYTHONPATH": str(project / "lib"), **environment}
    with (project / "log.txt").open("a") as log:
        process = subprocess.Popen(
            command,
            cwd=project,
            env=variables,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=heed_interrupts,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def heed_interrupts() -> None:
    """In a process to be: what is started in the background ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 600) -> Any:
    """The first true value of a condition that is looked at again and again."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not come to pass in {seconds:.0f} s"
        time.sleep(0.1)
    return value


def checkpoints(project: Path) -> int:
    """How many checkpoints the finetuning has written so far."""
    stamps = (project / RUN / "state").glob("checkpoint-*.json")
    return max((int(path.stem.removeprefix("checkpoint-")) + 1 for path in stamps), default=0)


def log_of(project: Path) -> str:
    """The log of the finetuning, as its last attempt leaves it."""
    return (project / "results/smoke/logs/finetune/ours_gender/0.log").read_text()
