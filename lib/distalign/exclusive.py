"""One process at a time: at a whole results directory, at one job, at one training state.

A file is held by `flock`, which the kernel gives back when the process ends, however it ends. So a lock that outlives
its owner, as Snakemake's own does after a SIGKILL or a power cut, is told from one that is in use, and nobody has to
unlock anything by hand. A file system without locks leaves everything to Snakemake's.
"""

import errno
import fcntl
import logging
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from distalign.errors import UserError

WORKFLOW_LOCK = ".lock"  # in results/{preset}; holds the owner's name
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
PATIENCE = 2.0  # seconds in which a process that only looks at a lock is done with it
RUN_OF_SNAKEMAKE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # its name for the SLURM jobs of one run
log = logging.getLogger(__name__)


@contextmanager
def held(path: Path, work: str, poll: float = 1.0) -> Iterator[IO[str]]:
    """Hold a file, which is made if need be, while the block runs; wait for whoever holds it now.

    A job can meet an earlier process of itself: Snakemake was killed and started again, and that one still runs.

    Args:
        path: what is held; its content stays as it is.
        work: what for, in the message that says why nothing happens.
        poll: seconds between attempts.

    Yields:
        the file, opened for appending.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = path.open("a", encoding="utf-8")
    try:
        if not _take(handle):
            log.warning("another process, of an earlier start, is still at work on %s; waiting until it ends", work)
            while not _take(handle):
                time.sleep(poll)
            log.warning("the other process has ended; going on")
        yield handle
    finally:
        with suppress(OSError):  # what a full disk does not take is lost
            handle.close()


def owner(results: Path) -> str | None:
    """Which Snakemake is at work on `results/{preset}`; None if none is."""
    try:
        with (results / WORKFLOW_LOCK).open("r+", encoding="utf-8") as handle:
            return None if _take(handle) else handle.read().strip()
    except OSError:
        return None


def claim(results: Path) -> IO[str]:
    """Say that this Snakemake is at work on `results/{preset}`, for as long as the returned file stays open.

    Raises:
        UserError: another one is.
    """
    results.mkdir(parents=True, exist_ok=True)
    handle = (results / WORKFLOW_LOCK).open("a+", encoding="utf-8")
    patience = time.monotonic() + PATIENCE
    while not _take(handle):
        if time.monotonic() > patience:
            handle.seek(0)
            other = handle.read().strip()
            handle.close()
            raise UserError(busy(results, other))
        time.sleep(0.1)
    handle.truncate(0)
    handle.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
    handle.flush()
    return handle


def busy(results: Path, other: str) -> str:
    """What a second Snakemake is told."""
    return (
        f"{results}: another Snakemake is at work here ({other}). Wait until it ends, or stop it with Ctrl-C. "
        "Do not --unlock: the lock of a Snakemake that was killed is removed by the next one."
    )


def remove_stale_locks(results: Path, locks: Path) -> list[Path]:
    """Remove the locks that a dead Snakemake left on files of `results/{preset}`, and return them.

    Nothing is removed while another one is at work, nor where none that holds `WORKFLOW_LOCK` has ever been.

    Args:
        results: `results/{preset}`, as the rules write it.
        locks: where Snakemake keeps its locks: files that list what is locked, `.snakemake/locks`.
    """
    try:
        handle = (results / WORKFLOW_LOCK).open("r+", encoding="utf-8")
    except OSError:
        return []
    with handle:
        if not _take(handle, unsupported=False):
            return []
        stale = [path for path in sorted(locks.glob("*.lock")) if _mentions(path, f"{results}/")]
        for path in stale:
            path.unlink(missing_ok=True)
        return stale


def cancel_left_over_jobs(preset: str, directory: Path) -> list[str]:
    """Cancel the SLURM jobs that a dead Snakemake of this directory left, and return their numbers.

    They would be done a second time by this one, or, still pending, delete what it has made. A running finetuning saves
    and the new job goes on from there. For the process that has made its `claim` and not submitted anything yet.
    """
    if shutil.which("squeue") is None:
        return []
    query = ["squeue", "--me", "--noheader", "--format=%i|%j|%k|%Z"]
    listed = _ask(query, logging.DEBUG)  # many machines have SLURM's commands and no SLURM
    left = left_over(listed.splitlines(), preset, directory)
    if left:
        _ask(["scancel", *left])
    return left


def left_over(queue: Sequence[str], preset: str, directory: Path) -> list[str]:
    """Which jobs of a queue (number|name|comment|directory) a Snakemake here submitted for a preset, by number."""
    found = []
    for line in queue:
        number, name, comment, place = line.split("|", 3)
        # of a rule, or of the group run_{preset}_{run}_{seed} of profiles/slurm
        ours = re.match(rf"rule_(\w+_wildcards|run)_{re.escape(preset)}(_|$)", comment)
        if RUN_OF_SNAKEMAKE.fullmatch(name) and ours and Path(place) == directory:
            found.append(number)
    return found


def _take(handle: IO[str], unsupported: bool = True) -> bool:
    """Take the lock if it is free; `unsupported` is the answer where there are no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return unsupported
    return True


def _mentions(path: Path, prefix: str) -> bool:
    with suppress(OSError):
        return any(line.startswith(prefix) for line in path.read_text(encoding="utf-8").splitlines())
    return False


def _ask(command: list[str], level: int = logging.WARNING) -> str:
    """What a SLURM command prints; nothing, and a line of this level in the log, if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        log.log(level, "%s failed: %s", command[0], getattr(error, "stderr", None) or error)
        return ""
