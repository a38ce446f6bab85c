"""Rendered face data sets: the mini world's stand-in for CelebA and FairFace, with the labels the renderer knows."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from distalign.config.attributes import PAPER_ATTRIBUTES
from distalign.faces.detector import Detector, FaceBatch, largest
from distalign.miniworld.people import People
from distalign.miniworld.renderer import render
from distalign.miniworld.scenes import draw_identities, draw_scene, random_looks
from distalign.store.parquet import FACES, ParquetWriter, encode_png, to_table

_PLAIN = 0.9  # share of plain photos
_STYLED = (1, 2, 3, 4, 5)
_BATCH = 256
# Share of the identities in each split; an identity is in one split only.
_SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}


def render_faces(
    path: Path, identities: int, pictures: int, seed: int, detector: Detector, provenance: dict[str, Any]
) -> None:
    """Write a FACES Parquet of `identities` people with `pictures` portraits each.

    Labels are balanced and independent of clothes, background and style, so that a classifier cannot read the
    occupation instead of the face. Boxes and landmarks are the detector's.
    """
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(identities), pictures)
    people = draw_identities(identities, rng).take(who)
    styles = np.where(rng.random(len(who)) < _PLAIN, 0, rng.choice(_STYLED, size=len(who)))
    scene = draw_scene(random_looks(len(who), rng), people, styles, rng)
    splits = _splits(identities)[who]
    with ParquetWriter(path, FACES, provenance) as writer:
        for start in range(0, len(who), _BATCH):
            rows = np.arange(start, min(start + _BATCH, len(who)))
            images = render(people.take(rows), scene.take(rows))
            found = largest(detector.detect(images.float() / 127.5 - 1), *images.shape[-2:])
            columns = _columns(images, people.take(rows), found)
            names = [f"{seed}-{who[r]:05d}-{r % pictures:02d}" for r in rows]
            columns |= {"image_id": names, "split": list(splits[rows]), "identity": [int(i) for i in who[rows]]}
            for cell, name in zip(columns["image"], names, strict=True):
                cell["path"] = f"{name}.png"
            writer.write(to_table(columns, FACES))


def _splits(identities: int) -> np.ndarray:
    edges = np.cumsum(list(_SPLITS.values()))
    position = (np.arange(identities) + 0.5) / identities
    return np.array(list(_SPLITS))[np.searchsorted(edges, position)]


def _columns(images: torch.Tensor, people: People, faces: FaceBatch) -> dict[str, list[Any]]:
    """Columns of one batch; box, landmarks and score are null where no face was found."""
    found = faces.found.tolist()

    def known(values: torch.Tensor) -> list[Any]:
        return [v if ok else None for v, ok in zip(values.tolist(), found, strict=True)]

    columns: dict[str, list[Any]] = {a: people.labels(a) for a in PAPER_ATTRIBUTES}
    columns["image"] = [{"bytes": encode_png(i.permute(1, 2, 0).numpy()), "path": ""} for i in images]
    columns["found"] = found
    columns |= {name: known(faces.boxes[:, i]) for i, name in enumerate(("x1", "y1", "x2", "y2"))}
    columns["landmarks"] = known(faces.landmarks.flatten(1))
    columns["score"] = known(faces.scores)
    return columns
