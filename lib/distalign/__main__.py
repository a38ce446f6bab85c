"""Where results come from, how two of them differ, and a bundle of them to hand on: `distalign VERB ...`."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from distalign.errors import UserError
from distalign.secrets import redact

VERBS = {
    "explain": "where a number of a table, or any file of results, comes from, and the command that makes it again",
    "diff": "in which settings and numbers two runs, two Parquet files or two folders of results differ",
    "check": "whether what files were made from is still what it was",
    "archive": "pack the results of a preset into one file that says what it is",
    "verify": "check every file of such a bundle against its manifest",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb: its exit status, or 2 after a message to stderr."""
    lines = [f"  {verb:8}  {what}" for verb, what in VERBS.items()]
    parser = argparse.ArgumentParser(
        prog="distalign",
        description=__doc__,
        epilog="\n".join(["verbs:", *lines, "", "distalign VERB --help says more."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=VERBS, metavar="VERB")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="what the verb is about")
    options = parser.parse_args(arguments)
    verb = importlib.import_module(f"distalign.trace.{options.verb}")  # only the one that is asked for
    try:
        status: int = verb.main(options.rest)
        sys.stdout.flush()
    except UserError as error:
        print(redact(str(error)), file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


if __name__ == "__main__":
    sys.exit(main())
