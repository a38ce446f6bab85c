"""The mini world's prompt sets, in the form of every preset's: `python -m distalign.miniworld.prompt_files`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distalign.miniworld.captions import TEMPLATE, TEMPLATES, with_style
from distalign.miniworld.world import STYLES, Concept, occupations, of_kind
from distalign.prompts.prompt_set import SPLITS, fill
from distalign.store.files import atomic_write_json

CONTEXTS = 60  # training occupations that are also shown in a style or circumstance


def write_prompt_sets(directory: Path) -> None:
    """Write every prompt set of the mini preset into a directory."""
    for name, splits in prompt_sets().items():
        atomic_write_json(directory / f"mini_{name}.json", {"template": TEMPLATE, "splits": splits})


def prompt_sets() -> dict[str, dict[str, Any]]:
    """Name of a set -> split -> concepts, or concepts with the text of their prompt.

    occupations: the paper's main set. Those to finetune on come in two groups: the pairs are many and share their
    words, so that each is learned from all others; of the single words every one is new.
    styles: only to test; test occupations in other words than the template's, each in a style or circumstance.
    contexts: occupations in the template, followed by a style or circumstance. sports, descriptors: in the template.
    """
    names = {split: _names(occupations(split)) for split in SPLITS}
    train = occupations("train")
    return {
        "occupations": {
            **names,
            "train": {
                "single words": [name for name in names["train"] if " " not in name],
                "pairs": [name for name in names["train"] if " " in name],
            },
        },
        "styles": {"test": _styled(occupations("test"), TEMPLATES[1:])},
        "contexts": {
            "train": _styled(train[:: len(train) // CONTEXTS], [TEMPLATE]),
            "validation": _styled(occupations("validation")[::2], [TEMPLATE]),
            "test": _styled(occupations("test")[::2], [TEMPLATE]),
        },
        "sports": {split: _names(of_kind("sport", split)) for split in SPLITS},
        "descriptors": {split: _names(of_kind("description", split)) for split in SPLITS},
    }


def _names(concepts: Sequence[Concept]) -> list[str]:
    return [concept.name for concept in concepts]


def _styled(concepts: Sequence[Concept], templates: Sequence[str]) -> list[dict[str, str]]:
    """Each concept once, with the templates and the styles (plain photos aside) in turn."""
    return [
        {
            "concept": concept.name,
            "text": with_style(fill(templates[i % len(templates)], concept.name), 1 + i % (len(STYLES) - 1)),
        }
        for i, concept in enumerate(concepts)
    ]


if __name__ == "__main__":
    write_prompt_sets(Path(sys.argv[1] if len(sys.argv) > 1 else "resources/prompts"))
