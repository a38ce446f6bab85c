"""Check config.yaml without running anything: `python -m distalign.config check [--preset P]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from distalign.config.files import read_yaml
from distalign.config.loading import preset_names
from distalign.config.study import CONFIG_FILE, load_study
from distalign.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every problem, or a line per preset; 0 if there are no problems, else 1."""
    parser = argparse.ArgumentParser(prog="python -m distalign.config", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="check")
    check = commands.add_parser("check", help="check the configuration")
    check.add_argument("--preset", help="a preset, instead of the one config.yaml names; 'all' for every one")
    check.add_argument("--directory", type=Path, default=Path(), help="the repository (default: here)")
    options = parser.parse_args(arguments)
    root: Path = options.directory
    presets = preset_names(root) if options.preset == "all" else [options.preset]
    return max([_check(root, preset) for preset in presets], default=1)


def _check(root: Path, preset: str | None) -> int:
    try:
        raw = read_yaml(root / CONFIG_FILE)
        study = load_study({**raw, "preset": preset} if preset else raw, root)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    counts = f"{len(study.runs)} runs, {len(study.tables)} tables, {len(study.figures)} figures"
    print(f"{CONFIG_FILE} with preset {study.preset.name}: {counts}, no problems")
    return 0


if __name__ == "__main__":
    sys.exit(main())
