"""A labelled face Parquet, for training and embedding: decoded into memory, or image by image where it is large."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from distalign.config.attributes import ATTRIBUTES, PAPER_ATTRIBUTES, RACE7
from distalign.errors import UserError
from distalign.faces.stored import StoredImages
from distalign.store.parquet import FACES, PUBLISHED_FACES, read_batches

UNKNOWN = -1
ROWS_AT_ONCE = 1024
DECODED_BYTES = 2**30  # of a set's pixels; larger sets are decoded batch by batch, in every epoch


@dataclass(frozen=True)
class FaceSet:
    """Faces with their labels, all on the CPU.

    Attributes:
        images: (N, 3, H, W) uint8, by their rows.
        boxes: (N, 4) float32, in pixels.
        landmarks: (N, 5, 2) float32, in pixels.
        labels: Class index (N,) int64 of each attribute, -1 where unknown.
        identity: (N,) int64, -1 where unknown.
    """

    images: Tensor | StoredImages
    boxes: Tensor
    landmarks: Tensor
    labels: dict[str, Tensor]
    identity: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int | None) -> "FaceSet":
        """The first so many faces; None for all."""
        if count is None:
            return self
        labels = {name: label[:count] for name, label in self.labels.items()}
        images = self.images.first(count) if isinstance(self.images, StoredImages) else self.images[:count]
        return FaceSet(images, self.boxes[:count], self.landmarks[:count], labels, self.identity[:count])

    def batch(self, index: Tensor) -> Tensor:
        """Images (n, 3, H, W) in [-1, 1] of the rows `index`."""
        return to_float(self.images[index])


def to_float(images: Tensor) -> Tensor:
    """Images from uint8 to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def load_faces(path: Path, split: str, attributes: Iterable[str] = PAPER_ATTRIBUTES) -> FaceSet:
    """Faces of one split that were found by the detector; all images must have one size.

    Args:
        path: A Parquet file with the columns of `FACES`.
        split: `train`, `validation` or `test`.
        attributes: Labels to read; race7 is read from the words of FairFace.

    Raises:
        UserError: unreadable file, no face in the split, an unknown class word, or images of several sizes.
    """
    names = tuple(attributes)
    boxes = ["x1", "y1", "x2", "y2"]
    stored = {name: "published_race" if name == RACE7 else name for name in names}
    columns = ["image", "split", *stored.values(), "identity", "found", *boxes, "landmarks"]
    schema = PUBLISHED_FACES if RACE7 in names else FACES
    parts: list[pa.RecordBatch] = []

    def cells() -> Iterator[bytes]:
        for rows in read_batches(path, schema, ROWS_AT_ONCE, columns):
            chosen = rows.filter(pc.and_(pc.equal(rows["split"], split), rows["found"]))
            parts.append(chosen.drop_columns(["image", "split", "found"]))
            yield from pc.struct_field(chosen["image"], "bytes").to_pylist()

    images = StoredImages(cells(), str(path))
    if not len(images):
        raise UserError(f"{path}: no face in split {split!r}; is it the right file, and were faces detected in it?")
    table = pa.Table.from_batches(parts)
    return FaceSet(
        images=images if math.prod(images.shape) > DECODED_BYTES else images[torch.arange(len(images))],
        boxes=torch.from_numpy(np.stack([table[name].to_numpy() for name in boxes], 1).astype(np.float32)),
        landmarks=torch.tensor(table["landmarks"].to_pylist()).view(-1, 5, 2),
        labels={name: _label_indices(path, table[column], name) for name, column in stored.items()},
        identity=torch.from_numpy(table["identity"].fill_null(UNKNOWN).to_numpy().copy()),
    )


def _label_indices(path: Path, words: pa.ChunkedArray, attribute: str) -> Tensor:
    """Class indices of class words, -1 for null."""
    classes = ATTRIBUTES[attribute]
    if attribute == RACE7:  # `Middle Eastern` is middle_eastern
        words = pc.replace_substring(pc.utf8_lower(words), " ", "_")
    unknown = sorted(set(pc.unique(words).to_pylist()) - {*classes, None})
    if unknown:
        raise UserError(f"{path}: column {attribute}: unknown classes {unknown}; known are {list(classes)}.")
    index = pc.index_in(words, value_set=pa.array(classes)).fill_null(UNKNOWN)
    return torch.from_numpy(index.to_numpy().astype(np.int64))
