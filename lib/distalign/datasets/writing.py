"""From a published data set to the Parquet file of faces: detected, of one size, without what is defective."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from distalign.datasets.celeba import open_celeba
from distalign.datasets.fairface import open_fairface
from distalign.datasets.photographs import DOUBLE, NO_FACE, OTHER_SIZE, UNREADABLE, Defects, Photograph, Source
from distalign.errors import UserError
from distalign.faces.columns import face_columns
from distalign.faces.detector import Detector, FaceBatch, Faces
from distalign.store.images import decode_image, encode_jpeg
from distalign.store.parquet import PUBLISHED_FACES, ParquetWriter
from distalign.store.seeds import stable_seed

log = logging.getLogger(__name__)
BATCH = 64
LOGGED = 20  # names of each kind of defect
DEFECTS_KEY = "defects"

Pixels = NDArray[np.uint8]


def write_published(
    path: Path,
    spec: Mapping[str, Any],
    root: Path,
    detector: Detector,
    provenance: Mapping[str, Any],
    device: torch.device | str = "cpu",
) -> Defects:
    """Write a published data set as faces. Memory does not grow with the images, but with their names and labels.

    Args:
        path: The Parquet file to write; what was left out is listed in its metadata, under `defects`.
        spec: The settings `Faces` of a preset as a dictionary.
        root: The repository, which a relative path starts from.
        detector: Finds the faces.
        provenance: What to keep in the metadata.
        device: Where the detector is.

    Raises:
        UserError: the data set is missing, of another layout, or has too many defects.
    """
    folder = root / spec["path"]
    defects = Defects(str(folder), spec["allowed_defects"], spec["allowed_missed"])
    source: Source = open_celeba(folder) if spec["source"] == "celeba" else open_fairface(folder, spec["old_from"])
    photographs = source.photographs(defects)
    total = len(photographs) + sum(defects.counts().values())
    defects.check(total, len(photographs))
    if not photographs:
        raise UserError(f"{folder}: no image with labels. Layouts: docs/data.md.")
    chosen = drawn(photographs, spec.get("images"), spec["seed"])
    log.info("%s: %d images with labels, of which %d are read", folder, len(photographs), len(chosen))
    fitting, written = Fitting(spec.get("size"), defects), 0
    with ParquetWriter(path, PUBLISHED_FACES, provenance) as writer:
        images = iter(tqdm(source.images(chosen), total=len(chosen), desc=folder.name, disable=None))
        while part := list(islice(images, BATCH)):
            written += _write(writer, fitting.sized(part), detector, defects, device)
            defects.check(total, len(chosen))
        if not written:
            raise UserError(f"{folder}: no face was found in any image.")
        writer.note(DEFECTS_KEY, defects.report())
    for kind, count in defects.counts().items():
        log.info("left out: %d %s%s", count, kind, "".join(f"\n    {name}" for name in defects.found[kind][:LOGGED]))
    return defects


def drawn(photographs: list[Photograph], count: int | None, seed: int) -> list[Photograph]:
    """So many photographs, in their order, drawn by a hash of the names; None for all."""
    if count is None or count >= len(photographs):
        return photographs
    names = sorted((it.name for it in photographs), key=lambda name: stable_seed(seed, name))
    kept = set(names[:count])
    return [it for it in photographs if it.name in kept]


class Fitting:
    """Decodes images and brings them to one size.

    Args:
        side: Side of the square they are fitted into; None: the size of the first, others are defects.
        defects: Where images that cannot be used are noted.
    """

    def __init__(self, side: int | None, defects: Defects) -> None:
        self.side = side
        self.shape: tuple[int, ...] | None = None
        self.defects = defects
        self._seen: set[bytes] = set()
        self._pool = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="decode")

    def sized(self, part: Sequence[tuple[Photograph, bytes | None]]) -> list[tuple[Photograph, bytes, Pixels]]:
        """Photographs without defects, with the bytes to store and the pixels (H, W, 3) of each."""
        results = []
        for (photograph, cell), pixels in zip(part, self._pool.map(_decoded, (it for _, it in part)), strict=True):
            if cell is None or pixels is None:
                self.defects.add(UNREADABLE, photograph.name)
            elif kind := self._defect(cell, pixels):
                self.defects.add(kind, photograph.name)
            else:
                results.append((photograph, *self._sized(cell, pixels)))
        return results

    def _defect(self, cell: bytes, pixels: Pixels) -> str | None:
        digest = hashlib.blake2b(cell, digest_size=16).digest()
        if digest in self._seen:
            return DOUBLE
        self._seen.add(digest)
        self.shape = self.shape or pixels.shape
        return OTHER_SIZE if self.side is None and pixels.shape != self.shape else None

    def _sized(self, cell: bytes, pixels: Pixels) -> tuple[bytes, Pixels]:
        if self.side is None or pixels.shape == (self.side, self.side, 3):
            return cell, pixels
        stored = encode_jpeg(fitted(pixels, self.side))
        return stored, decode_image(stored)


def fitted(pixels: Pixels, side: int) -> Pixels:
    """An image (H, W, 3) in the middle of a square, as large as it fits, antialiased, with black beside it."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
    square = np.zeros((side, side, 3), np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = resized
    return square


def central(faces: Sequence[Faces], height: int, width: int) -> FaceBatch:
    """Of each image the face nearest to the middle: whom published labels are about, also among other people."""
    middle = torch.tensor([width / 2, height / 2])
    boxes, landmarks = torch.zeros(len(faces), 4), torch.zeros(len(faces), 5, 2)
    scores = torch.zeros(len(faces))
    found = torch.tensor([len(one) > 0 for one in faces])
    for row, one in enumerate(faces):
        if len(one):
            centres = (one.boxes[:, :2] + one.boxes[:, 2:]).cpu() / 2
            best = int((centres - middle).square().sum(1).argmin())
            boxes[row], landmarks[row], scores[row] = one.boxes[best], one.landmarks[best], one.scores[best]
    return FaceBatch(found, boxes, landmarks, scores)


def _decoded(cell: bytes | None) -> Pixels | None:
    try:
        return None if cell is None else decode_image(cell)
    except UserError:
        return None


def _write(
    writer: ParquetWriter,
    rows: Sequence[tuple[Photograph, bytes, Pixels]],
    detector: Detector,
    defects: Defects,
    device: torch.device | str,
) -> int:
    """Write those of a batch in which a face is found; returns how many."""
    if not rows:
        return 0
    pixels = torch.from_numpy(np.stack([image for _, _, image in rows])).permute(0, 3, 1, 2).to(device)
    faces = central(detector.detect(pixels.float() / 127.5 - 1), *pixels.shape[-2:])
    for (photograph, _, _), found in zip(rows, faces.found.tolist(), strict=True):
        if not found:
            defects.add(NO_FACE, photograph.name)
    kept = faces.found.nonzero().squeeze(1)
    chosen = [rows[index] for index in kept.tolist()]
    if chosen:
        columns: dict[str, Any] = face_columns(
            FaceBatch(faces.found[kept], faces.boxes[kept], faces.landmarks[kept], faces.scores[kept])
        )
        columns["image_id"] = [it.name for it, _, _ in chosen]
        columns["image"] = [{"bytes": cell, "path": None} for _, cell, _ in chosen]
        for name in ("split", "gender", "race", "age", "identity", "published_race", "published_age"):
            columns[name] = [getattr(it, name) for it, _, _ in chosen]
        writer.write(columns)
    return len(chosen)
