"""The whole workflow, stopped again and again: it goes on by the same command and ends with the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from helpers.workflow import copy_project, planned, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.faults, pytest.mark.full, pytest.mark.timeout(3600)]
SMOKE = ("--config", "preset=smoke")


def tables(project: Path) -> dict[str, bytes]:
    """Every table in every format."""
    return {path.name: path.read_bytes() for path in sorted((project / "results/smoke/tables").iterdir())}


def jobs_of(process: int) -> list[int]:
    """Processes below a process that run a script of the workflow, oldest first (ww: however narrow the terminal)."""
    listed = subprocess.run(["ps", "-wweo", "pid,pgid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    return [int(pid) for pid, group, command in rows if int(group) == process and ".snakemake/scripts" in command]


def heed_interrupts() -> None:
    """In a process to be: what is started in the background ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("victim", ["workflow", "job"])
def test_stopped_again_and_again(tmp_path: Path, victim: str) -> None:
    undisturbed = copy_project(tmp_path / "undisturbed" / "distalign")
    result = snakemake(undisturbed, *SMOKE)
    assert result.returncode == 0, result.stdout + result.stderr
    project = copy_project(tmp_path / "disturbed" / "distalign")
    moments = random.Random(0)
    hits = 0
    for _ in range(8):
        command = [sys.executable, "-m", "snakemake", "--cores", "all", *SMOKE]
        environment = {**os.environ, "PYTHONPATH": str(project / "lib")}
        with (
            (project / "log.txt").open("w") as log,
            subprocess.Popen(
                command,
                cwd=project,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=heed_interrupts,
            ) as process,
        ):
            for pause in (0, moments.uniform(0, 12)):
                time.sleep(pause)
                while not (jobs := jobs_of(process.pid)) and process.poll() is None:
                    time.sleep(0.1)
            if jobs:
                hits += 1
                if victim == "workflow":
                    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
                else:
                    with suppress(ProcessLookupError):  # it was done just now
                        os.kill(jobs[0], signal.SIGKILL)
            process.wait()
    assert hits >= 3
    result = snakemake(project, *SMOKE)
    assert result.returncode == 0, result.stdout + result.stderr
    assert planned(project, *SMOKE) == {}
    assert tables(project) == tables(undisturbed)
    assert not list((project / "results").rglob("*.tmp"))
