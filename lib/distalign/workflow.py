"""What every job of the workflow shares: its specification, where its log goes, how it ends, its threads.

The scripts of `workflow_scripts/` hand over Snakemake's job object; nothing here imports Snakemake.
"""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, Protocol

from distalign.config.fingerprint import canonical_json
from distalign.config.models import Preset, Weights
from distalign.errors import UserError, exhausted
from distalign.exclusive import held
from distalign.secrets import RedactingFormatter
from distalign.store.usage import measured, usage_file

if TYPE_CHECKING:
    import torch

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
logger = logging.getLogger(__name__)


class Spec(dict[str, Any]):
    """A specification as a rule's parameter.

    Snakemake reruns a job when `repr` of a parameter changes. This one shows the meaning only: neither the order of
    keys, nor an unset key, nor a setting that changes speed but no result makes a job run again.
    """

    def __repr__(self) -> str:
        return canonical_json(self)


class Job(Protocol):
    """The part of Snakemake's `snakemake` object used here."""

    log: Any
    threads: int
    rule: str


@contextmanager
def job(context: Job) -> Iterator[None]:
    """Run the body of a script: log to the rule's file and to stderr, and end cleanly.

    What it took is written beside the log (`store.usage`), which shows no secret of the environment.

    A `UserError`, and memory or disk space that is out, become a message and exit status 1, without a traceback. A job
    of which an earlier process still runs waits for it. SIGTERM (a cluster's time limit, Ctrl-C
    through Snakemake) raises `SystemExit` unless the body installs its own handler, so that files half written are
    removed. Any other exception is a defect: its traceback goes to the log.
    """
    signal.signal(signal.SIGTERM, _terminate)
    log_to(None)
    path = Path(context.log[0]) if context.log else None
    with held(path, context.rule) if path else nullcontext() as file:
        if file and file.tell():
            file.truncate(0)
        log_to(file)
        use_threads(context.threads)
        try:
            with _measured(context):
                yield
        except UserError as error:
            logger.error("%s: %s", context.rule, error)
            sys.exit(1)
        except Exception as error:
            message = exhausted(error)
            if message:
                logger.error("%s: %s", context.rule, message)
            else:
                logger.exception("%s stopped on a defect; please report it with this log", context.rule)
            sys.exit(1)


def weights_by_place(preset: Preset) -> dict[str, Weights]:
    """The pretrained models of a preset, by their directory below `results/{preset}/`; trained classifiers aside."""
    encoders = {
        f"encoders/{role}/{kind}": getattr(getattr(preset.encoders, role), kind).weights
        for role in ("training", "evaluation")
        for kind in ("clip", "dino")
    }
    initial = {
        f"initial/{name}": it.initial for name, it in preset.classifiers.items() if it.initial and not it.weights
    }
    weights = {"backbone": preset.backbone, "face_embedding": preset.face_embedding, **encoders, **initial}
    return weights | ({"concept_reader": preset.concept_reader} if preset.concept_reader else {})


def log_to(file: IO[str] | None) -> None:
    """Send our INFO, and warnings of all others, to stderr and, if given, to a file."""
    handlers = [logging.StreamHandler(sys.stderr)]
    if file is not None:
        handlers.append(logging.StreamHandler(file))
    for handler in handlers:
        handler.setFormatter(RedactingFormatter(LOG_FORMAT))
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    logging.getLogger("distalign").setLevel(logging.INFO)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # on a full disk, the message must not drown in what the log cannot take


def use_threads(threads: int) -> None:
    """Let numerical libraries use as many threads as Snakemake granted; torch only if the job has imported it."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    loaded = sys.modules.get("torch")
    if loaded is not None:
        loaded.set_num_threads(threads)


def device() -> "torch.device":
    """Where a job computes: the GPU it was given, or the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _measured(context: Job) -> AbstractContextManager[None]:
    if not context.log:
        return nullcontext()
    params = getattr(context, "params", None) or {}
    settings = {name: params.get(name) for name in ("spec", "version")}
    return measured(usage_file(Path(context.log[0])), context.rule, settings)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
