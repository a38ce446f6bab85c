"""Measures of single images, per prompt: likeness to text and to the original image, faces found, concept readable."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

# Per-image metrics: column of the predictions, and the values it can take.
IMAGE_METRICS: dict[str, tuple[str, tuple[float, float]]] = {
    "clip_t": ("clip_t", (-1.0, 1.0)),
    "clip_i": ("clip_i", (-1.0, 1.0)),
    "dino": ("dino", (-1.0, 1.0)),
    "face_found": ("found", (0.0, 1.0)),
    "concept_readable": ("concept_readable", (0.0, 1.0)),
}
SHARES = {"face_found", "concept_readable"}  # of images for which something is true


def values_by_prompt(
    classified: pa.Table, metric: str, prompt_index: NDArray[np.int64], prompts: int
) -> list[NDArray[np.float64]]:
    """The metric's values of each prompt's images; images without one (null) are left out."""
    column, _ = IMAGE_METRICS[metric]
    values = classified[column].cast(pa.float32()).to_numpy().astype(np.float64)
    return [own[~np.isnan(own)] for own in (values[prompt_index == prompt] for prompt in range(prompts))]


def means(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean of each prompt's values (prompts,), nan where there are none."""
    return np.array([own.mean() if len(own) else np.nan for own in values])


def deviations(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Sample standard deviation of each prompt's values (prompts,), nan with fewer than two."""
    return np.array([own.std(ddof=1) if len(own) > 1 else np.nan for own in values])
