"""Single jobs of a finished project, run again in processes that start at once, to be killed at any moment.

The scripts of the project are made to keep what Snakemake hands them; so a job can be run without Snakemake, in a fork
of a process that has imported everything.
"""

import multiprocessing
import os
import pickle
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from distalign.store import provenance
from helpers.faults import assert_whole

KEEP = """
import os, pickle
os.makedirs(".jobs", exist_ok=True)
kept = f".jobs/{snakemake.rule}-{'-'.join(snakemake.wildcards).replace('/', '-')}"
if not os.path.exists(kept):
    with open(kept, "wb") as file:
        pickle.dump(snakemake, file)
"""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "distalign.alignment.launch",
        "distalign.diffusion.images",
        "distalign.methods.loading",
        "distalign.measure.classify",
        "distalign.measure.results",
        "distalign.present.tables",
    ]
)


def keep_jobs(project: Path) -> None:
    """Let every script of a project keep its job object in `.jobs`."""
    for script in (project / "workflow_scripts").glob("*.py"):
        before, line, after = script.read_text().partition("snakemake: Snakemake\n")
        script.write_text(before + line + KEEP + after)


def _body(project: Path, name: str) -> None:
    """In a process of its own: the job, as its script does it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(project)
    provenance.REPOSITORY = project  # what is recorded of the code, as if it were run from there
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    job = pickle.loads(Path(".jobs", name).read_bytes())
    script = Path("workflow_scripts", f"{job.rule}.py")
    exec(compile(script.read_text(), str(script), "exec"), {"snakemake": job, "__name__": "__main__"})
    for output in map(Path, job.output):
        if output.is_dir():
            (output / ".snakemake_timestamp").touch()  # as Snakemake does when a job is done


def start(project: Path, name: str) -> Any:
    """Start a job after removing its outputs, as Snakemake does."""
    job = pickle.loads((project / ".jobs" / name).read_bytes())
    for path in (project / output for output in job.output):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    process = FORKS.Process(target=_body, args=(project, name))
    process.start()
    return process


def finish(project: Path, name: str) -> float:
    """Run a job to its end; how many seconds it took."""
    began = time.monotonic()
    process = start(project, name)
    process.join()
    assert process.exitcode == 0, (project / pickle.loads((project / ".jobs" / name).read_bytes()).log[0]).read_text()
    return time.monotonic() - began


def kill_again_and_again(project: Path, name: str, kills: int, moments: random.Random) -> list[str]:
    """Kill a job this many times, at moments spread over its duration; after each, no final name shows a torn file.

    Returns:
        the signals it really died of or stopped for.
    """
    finish(project, name)  # the first one also imports everything
    _forget_training(project, name)
    duration = finish(project, name)
    hits: list[str] = []
    attempts, complete = 0, True
    while len(hits) < kills:
        attempts += 1
        assert attempts < 4 * kills, f"{name} ended before it was killed, {attempts - len(hits)} times"
        if complete:
            _forget_training(project, name)
        process = start(project, name)
        number = SIGNALS[attempts % len(SIGNALS)]
        process.join(moments.uniform(0, duration))
        if process.is_alive():
            os.kill(process.pid, number)
        process.join()
        complete = process.exitcode == 0
        if not complete:
            hits.append(number.name)
        assert assert_whole(project / "results") >= 20
    finish(project, name)
    return hits


def _forget_training(project: Path, name: str) -> None:
    """Let a finetuning train again, not only write its results once more."""
    if name.startswith("finetune"):
        for state in (project / "results/smoke/runs").glob("*/*/state"):
            shutil.rmtree(state)
