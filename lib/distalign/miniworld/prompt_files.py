"""The mini world's prompt sets, in the form of every preset's: `python -m distalign.miniworld.prompt_files`."""

import sys
from pathlib import Path

from distalign.miniworld.captions import TEMPLATE
from distalign.miniworld.world import occupations
from distalign.store.files import atomic_write_json


def write_prompt_sets(directory: Path) -> None:
    """Write mini_occupations.json: the paper's template and the occupations of each split."""
    splits = {split: [c.name for c in occupations(split)] for split in ("train", "validation", "test")}
    atomic_write_json(directory / "mini_occupations.json", {"template": TEMPLATE, "splits": splits})


if __name__ == "__main__":
    write_prompt_sets(Path(sys.argv[1] if len(sys.argv) > 1 else "resources/prompts"))
