"""torchrun, which starts and watches the ranks, with a line instead of a traceback where one fails.

A rank's own message, in the log above, says why; a rank that was killed could not write one.
"""

import json
import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from signal import SIGKILL

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from distalign.workflow import log_to

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Run torchrun with its own arguments, the last of which is the file `launch` wrote; return the exit status."""
    log = json.loads(Path(arguments[-1]).read_text()).get("log")
    with Path(log).open("a", encoding="utf-8") if log else nullcontext() as file:
        log_to(file)
        try:
            torchrun(list(arguments))
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            how = f"signal {failure.signal_name()}" if failure.exitcode < 0 else f"status {failure.exitcode}"
            if failure.exitcode == -SIGKILL:
                how += "; if memory ran out, give the job more: mem_mb in set-resources of the profile"
            logger.error("process %d of this finetuning ended first, with %s", rank, how)
            return 1
        except SignalException as signal:
            return 128 + signal.sigval
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
