"""Detected faces as Parquet columns."""

from typing import Any

import numpy as np
from torch import Tensor

from distalign.faces.detector import FaceBatch

CORNERS = ("x1", "y1", "x2", "y2")


def face_columns(faces: FaceBatch) -> dict[str, Any]:
    """The columns found, x1, y1, x2, y2, landmarks and score of one face per image; null where none was found."""
    found = faces.found.cpu().numpy()
    columns: dict[str, Any] = {"found": found}
    for index, name in enumerate(CORNERS):
        columns[name] = where_found(found, faces.boxes[:, index])
    columns["landmarks"] = where_found(found, faces.landmarks.flatten(1))
    columns["score"] = where_found(found, faces.scores)
    return columns


def where_found(found: np.ndarray[Any, np.dtype[np.bool_]], values: Tensor) -> list[Any]:
    """Values (B, ...) as a list, with None in place of those of images without a face."""
    return [value if ok else None for value, ok in zip(values.tolist(), found, strict=True)]
