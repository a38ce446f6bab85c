"""What every job of the workflow shares: where its log goes, how it ends on an error, how many threads it uses.

The scripts of `workflow_scripts/` hand over Snakemake's job object; nothing here imports Snakemake.
"""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from distalign.errors import UserError

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
logger = logging.getLogger(__name__)


class Job(Protocol):
    """The part of Snakemake's `snakemake` object used here."""

    log: Any
    threads: int
    rule: str


@contextmanager
def job(context: Job) -> Iterator[None]:
    """Run the body of a script: log to the rule's file and to stderr, and end cleanly.

    A `UserError` becomes its message and exit status 1, without a traceback. SIGTERM (a cluster's time limit, Ctrl-C
    through Snakemake) raises `SystemExit` unless the body installs its own handler, so that files half written are
    removed. Any other exception is a defect: its traceback goes to the log.
    """
    log_to(Path(context.log[0]) if context.log else None)
    use_threads(context.threads)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except UserError as error:
        logger.error("%s: %s", context.rule, error)
        sys.exit(1)
    except Exception:
        logger.exception("%s stopped on a defect; please report it with this log", context.rule)
        sys.exit(1)


def log_to(path: Path | None) -> None:
    """Send INFO and above to stderr and, if given, to a file that is written anew."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, mode="w", encoding="utf-8"))
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, handlers=handlers, force=True)
    logging.captureWarnings(True)


def use_threads(threads: int) -> None:
    """Let numerical libraries use as many threads as Snakemake granted; torch only if the job has imported it."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
