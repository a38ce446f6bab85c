"""Real pictures that generated images are compared with, as DINO features: the reference, and others for the floor."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distalign.config.attributes import PAPER_ATTRIBUTES
from distalign.errors import UserError
from distalign.faces.dataset import to_float
from distalign.measure.realism import FLOOR_PART, REFERENCE_PART
from distalign.store.parquet import REFERENCE, ParquetWriter, decode_image
from distalign.store.seeds import stable_seed

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
FEWEST = 2  # pictures of each part


class Picture(NamedTuple):
    """One picture, uint8 (3, H, W): the part it belongs to, and the prompt and the classes it shows, where known."""

    part: str
    prompt_id: str | None
    image: Tensor
    classes: Mapping[str, str] = {}  # attribute -> class


@torch.no_grad()
def write_reference(
    output: Path,
    pictures: Iterable[Picture],
    encode: Callable[[Tensor], Tensor],
    provenance: Mapping[str, Any],
    batch: int,
    device: torch.device,
) -> None:
    """Encode pictures of one size and write their features, schema REFERENCE, in their order.

    Args:
        output: Where to write.
        pictures: What to encode.
        encode: Images (B, 3, H, W) in [-1, 1] to features (B, D): `DinoEncoder.features`.
        provenance: For the file's metadata.
        batch: Pictures at once.
        device: Where the encoder is.
    """
    remaining = iter(pictures)
    with ParquetWriter(output, REFERENCE, provenance) as writer:
        while rows := list(islice(remaining, batch)):
            images = to_float(torch.stack([row.image for row in rows]).to(device))
            columns: dict[str, Any] = {"part": [row.part for row in rows], "prompt_id": [row.prompt_id for row in rows]}
            columns |= {name: [row.classes.get(name) for row in rows] for name in PAPER_ATTRIBUTES}
            writer.write(columns | {"dino": encode(images).cpu().numpy()})


def photographs(folder: Path, size: int, count: int, seed: int) -> Iterator[Picture]:
    """Photographs of a folder, and of those below it, as the reference and, others, for the floor.

    Each is cut to the square in its middle and brought to `size` with a filter, so that from there on it goes the way
    of a generated image. A seed draws which are taken: `count` for each part, or half of all where there are fewer.

    Args:
        folder: Of PNG, JPEG or WebP files.
        size: Side of the generated images in pixels.
        count: Pictures of each part.
        seed: Other seeds take others.

    Raises:
        UserError: no such folder, too few pictures, or a damaged one.
    """
    if not folder.is_dir():
        raise UserError(f"quality.path: {folder} is no folder; put photographs there, or leave `quality` out.")
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    number = min(count, len(names) // 2)
    if number < FEWEST:
        raise UserError(f"quality.path: {folder} holds {len(names)} pictures; at least {2 * FEWEST} are needed.")
    drawn = sorted(names, key=lambda name: (stable_seed("photographs", seed, name), name))[: 2 * number]
    for index, name in enumerate(drawn):
        part = REFERENCE_PART if index < number else FLOOR_PART
        yield Picture(part, None, _square(folder / name, size))


def _square(file: Path, size: int) -> Tensor:
    try:
        pixels = decode_image(file.read_bytes())
    except UserError as error:
        raise UserError(f"{file}: {error}. Replace it or take it away.") from None
    height, width, _ = pixels.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    picture = Image.fromarray(pixels[top : top + side, left : left + side])
    if side != size:
        picture = picture.resize((size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
