"""Stopped at any moment, again and again: it goes on by the same command and ends with the same bytes."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from helpers.faults import SMOKE, adapter, assert_whole, copy_of, run, small_study, started, tables, wait_until
from helpers.killing import keep_jobs, kill_again_and_again
from helpers.workflow import planned, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.faults, pytest.mark.full, pytest.mark.timeout(3600)]
ALL = ("tables", "--cores", "all")
KILLS = {
    "finetune-smoke-ours_gender-0": 24,
    "generate_images-smoke-ours_gender-0-occupations": 15,
    "classify_images-smoke-ours_gender-0-occupations": 15,
    "render_table-smoke-small": 12,
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = small_study(tmp_path_factory.mktemp("undisturbed") / "distalign", iterations=6)
    keep_jobs(project)
    run(project, "tables")
    return project


def jobs_of(process: int) -> list[int]:
    """Processes below a process that run a script of the workflow, oldest first (ww: however narrow the terminal)."""
    listed = subprocess.run(["ps", "-wweo", "pid,pgid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    return [int(pid) for pid, group, command in rows if int(group) == process and ".snakemake/scripts" in command]


def test_every_stage_killed_at_any_moment(
    undisturbed: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    project = copy_of(undisturbed, tmp_path / "distalign")
    moments = random.Random(0)
    hits: Counter[str] = Counter()
    for name, kills in KILLS.items():
        of_stage = Counter(kill_again_and_again(project, name, kills, moments))
        hits += of_stage
        for kind, count in sorted(of_stage.items()):
            record_property("survived", [count, f"{kind} of {name.partition('-')[0]}"])
    assert hits.total() >= 60
    assert set(hits) == {"SIGKILL", "SIGTERM", "SIGINT"}
    run(project, "tables")
    assert planned(project, "tables", *SMOKE) == {}
    assert adapter(project) == adapter(undisturbed)
    assert tables(project) == tables(undisturbed)
    assert not list((project / "results").rglob(".*.tmp"))


@pytest.mark.parametrize("victim", ["workflow interrupted", "workflow killed", "Snakemake alone killed", "job killed"])
def test_workflow_stopped_again_and_again(
    undisturbed: Path, tmp_path: Path, victim: str, record_property: Callable[[str, object], None]
) -> None:
    project = small_study(tmp_path / "distalign", iterations=6)
    moments = random.Random(victim)
    hits = 0
    for _ in range(4):
        with started(project, *ALL) as process:
            for pause in (0, moments.uniform(0, 20)):
                time.sleep(pause)
                while not (jobs := jobs_of(process.pid)) and process.poll() is None:
                    time.sleep(0.1)
            if jobs:
                hits += 1
                if victim == "workflow interrupted":
                    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
                elif victim == "workflow killed":
                    os.killpg(process.pid, signal.SIGKILL)
                elif victim == "Snakemake alone killed":  # its jobs go on, and the next one's wait for them
                    process.send_signal(signal.SIGKILL)
                else:
                    with suppress(ProcessLookupError):  # it was done just now
                        os.kill(jobs[0], signal.SIGKILL)
            process.wait()
        assert_whole(project / "results")
    assert hits >= 2
    record_property("survived", [hits, victim])
    said = run(project, "tables")
    if victim in ("workflow killed", "Snakemake alone killed"):
        assert "the Snakemake that left it is no longer alive" in said + (project / "log.txt").read_text()
    assert planned(project, "tables", *SMOKE) == {}
    assert tables(project) == tables(undisturbed)
    assert not list((project / "results").rglob(".*.tmp"))


def test_second_snakemake_is_told_of_the_first(tmp_path: Path) -> None:
    project = small_study(tmp_path / "distalign", iterations=2)
    with started(project, *ALL) as process:
        wait_until(lambda: jobs_of(process.pid), "the first job")
        second = snakemake(project, "tables", *SMOKE)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
    assert second.returncode != 0
    assert f"another Snakemake is at work here (process {process.pid} on " in second.stdout + second.stderr
    assert "Traceback" not in second.stdout + second.stderr
