"""How many images are in flight at once: as the preset says, or with `auto` as many as the card's memory holds.

`probing.py` finds that out by trying. Nothing here loads a model, so that jobs which only look at images stay light.
No result depends on these sizes beyond rounding: noises and losses are those of single images.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from distalign.errors import UserError
from distalign.store.files import atomic_write_json

AUTO = "auto"
# What is bounded: sampling; U-Net evaluations with gradient; decoding; decoding and losses with gradient.
KINDS = ("sample", "gradient", "decode", "loss")
ON_CPU = {"sample": 8, "gradient": 4, "decode": 8, "loss": 4}  # there memory is not asked: graphs may be swapped
LARGEST = {"sample": 64, "gradient": 48, "decode": 32, "loss": 32}  # larger ones are no faster
MULTIPLE = 192  # of every size that can be found for sampling: 1, 2, 3, 4, 6, ..., 48, 64
LOOKED_AT = 32  # images that detector, classifiers and encoders look at together on a GPU
FILE = "batch_sizes.json"

Size = int | str


def complete(micro_batch: Mapping[str, Size]) -> dict[str, Size]:
    """A size, or AUTO, of every kind: decoding follows `sample`, with gradient `gradient`, unless it has its own."""
    sizes = dict(micro_batch)
    gradient = sizes.get("gradient", 1)
    return {
        "sample": sizes["sample"],
        "gradient": gradient,
        "decode": sizes.get("decode", sizes["sample"]),
        "loss": sizes.get("loss", gradient),
    }


def given(micro_batch: Mapping[str, Size]) -> dict[str, int]:
    """`complete`, where no size is AUTO."""
    return {kind: int(size) for kind, size in complete(micro_batch).items()}


def looked_at(micro_batch: Mapping[str, Size], device: str) -> int:
    """Images that networks look at together, none of them the diffusion model; `device` is "cpu" or "cuda"."""
    size = micro_batch["sample"]
    if isinstance(size, int):
        return size
    return LOOKED_AT if device == "cuda" else ON_CPU["sample"]


def largest_that_fits(fits: Callable[[int], bool], at_most: int, what: str) -> int:
    """The largest of 1, 2, 3, 4, 6, 8, 12, ... up to `at_most` that fits; what fits must fit for all smaller ones.

    Sizes are doubled until one does not fit; then the one in the middle is tried.

    Raises:
        UserError: not even one image fits.
    """
    if not fits(1):
        raise UserError(
            f"micro_batch: the GPU's memory does not hold one image ({what}); use a larger GPU, or precision: float16"
        )
    size = 1
    while 2 * size <= at_most and fits(2 * size):
        size *= 2
    between = size * 3 // 2
    if size < between <= at_most and fits(between):
        return between
    return size


def remembered(file: Path, key: str) -> int | None:
    """The size found before under a key; None if there is none."""
    try:
        size = json.loads(file.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return size if isinstance(size, int) and size > 0 else None


def remember(file: Path, key: str, size: int) -> None:
    """Keep a size. Of two processes that write at once, one may have to find its size again later."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    atomic_write_json(file, {**(known if isinstance(known, dict) else {}), key: size})
