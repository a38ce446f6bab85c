"""The mini world's prompt sets, in the form of every preset's: `python -m distalign.miniworld.prompt_files`."""

import sys
from pathlib import Path
from typing import Any

from distalign.miniworld.captions import TEMPLATE
from distalign.miniworld.world import occupations
from distalign.store.files import atomic_write_json


def write_prompt_sets(directory: Path) -> None:
    """Write mini_occupations.json: the paper's template and the occupations of each split.

    Those to finetune on come in two groups. The pairs are many and share their words, so that each is learned from all
    others; of the single words every one is new.
    """
    splits: dict[str, Any] = {split: [c.name for c in occupations(split)] for split in ("train", "validation", "test")}
    splits["train"] = {
        "single words": [name for name in splits["train"] if " " not in name],
        "pairs": [name for name in splits["train"] if " " in name],
    }
    atomic_write_json(directory / "mini_occupations.json", {"template": TEMPLATE, "splits": splits})


if __name__ == "__main__":
    write_prompt_sets(Path(sys.argv[1] if len(sys.argv) > 1 else "resources/prompts"))
