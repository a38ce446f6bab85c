"""One of several finetuning processes; torchrun starts it with the file `launch` wrote."""

import json
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from distalign.alignment.distributed import end_with_parent
from distalign.alignment.trainer import FinetunePaths, Load, finetune, load_judges
from distalign.errors import UserError, exhausted
from distalign.workflow import log_to

logger = logging.getLogger(__name__)


def main(work: Path, judges: Load = load_judges) -> int:
    """Run the finetuning that `work` describes and return the exit status."""
    end_with_parent()
    content = json.loads(work.read_text())
    log = content.get("log")
    with Path(log).open("a", encoding="utf-8") if log else nullcontext() as file:
        log_to(file)
        if os.environ.get("RANK", "0") != "0":  # the first process speaks for all
            logging.getLogger("distalign").setLevel(logging.WARNING)
        return _finetune(content, judges)


def _finetune(content: Mapping[str, Any], judges: Load) -> int:
    names = content["paths"]
    paths: dict[str, Any] = {
        name: tuple(map(Path, it)) if isinstance(it, list) else Path(it) for name, it in names.items()
    }
    try:
        finetune(content["spec"], FinetunePaths(**paths), content["threads"], judges)
    except UserError as error:
        logger.error("%s", error)
        return 1
    except Exception as error:
        message = exhausted(error)
        if message:
            logger.error("%s", message)
        else:
            logger.exception("this process stopped on a defect; please report it with this log")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
