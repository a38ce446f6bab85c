"""The paper's bias metric, per prompt, classifier and attribute, and how far the shares are from the target."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from math import comb, prod
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distalign.config.attributes import ATTRIBUTES
from distalign.config.metrics import attribute_sets
from distalign.errors import UserError
from distalign.measure.floor import sampling_floor, target_floor
from distalign.store.parquet import BIAS, class_columns, to_table

NO_FACE = -1


@dataclass(frozen=True)
class RunKey:
    """What a measurement is about; the first columns of every result."""

    preset: str
    run: str
    seed: int
    evaluation: str


def bias(frequencies: NDArray[np.floating]) -> NDArray[np.float64]:
    """Average |f_i - f_j| over class pairs i < j: the bias of a prompt P as the paper defines it.

    Args:
        frequencies: (..., K) shares that sum to 1.

    Returns:
        (...), from 0 (uniform) to 2 / K (one class only): 1 for K = 2, .5 for 4, .25 for 8.
    """
    classes = frequencies.shape[-1]
    # In ascending order the k-th share is subtracted K - 1 - k times and added k times.
    weights = 2 * np.arange(classes) - (classes - 1)
    result: NDArray[np.float64] = np.sort(frequencies, axis=-1) @ weights / comb(classes, 2)
    return result


def target_distance(frequencies: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.float64]:
    """Total variation distance, in [0, 1], between shares (..., K) and a target distribution (K,)."""
    result: NDArray[np.float64] = np.abs(frequencies - target).sum(axis=-1) / 2
    return result


def cells(attribute: str) -> tuple[str, ...]:
    """Classes of an attribute; of a joint one all combinations, `female+wmelh` first, the last attribute fastest."""
    return tuple("+".join(names) for names in product(*(ATTRIBUTES[name] for name in attribute.split("+"))))


def cell_shares(attribute: str, align: Mapping[str, Mapping[str, float]]) -> NDArray[np.float64]:
    """Target share of each cell (K,): independent attributes, uniform where `align` says nothing."""
    uniform = {name: {value: 1 / len(values) for value in values} for name, values in ATTRIBUTES.items()}
    wanted = {**uniform, **align}
    shares = [[wanted[name].get(value, 0.0) for value in ATTRIBUTES[name]] for name in attribute.split("+")]
    return np.array([prod(factors) for factors in product(*shares)])


def hard_classes(classified: pa.Table, classifier: str, attribute: str) -> NDArray[np.int64]:
    """Most probable cell of each image (n,), as an index into `cells(attribute)`; `NO_FACE` where none was found."""
    index = np.zeros(classified.num_rows, np.int64)
    for name in attribute.split("+"):
        columns = class_columns(name, classifier)
        missing = sorted(set(columns) - set(classified.column_names))
        if missing:
            raise UserError(f"classifier {classifier!r} says nothing about {name!r}: there is no column {missing[0]}.")
        probabilities = np.column_stack([classified[column].to_numpy() for column in columns])
        index = index * len(columns) + np.argmax(probabilities, axis=1)
    found = classified["found"].to_numpy()
    return np.where(found, index, NO_FACE)


def readers(classified: pa.Table) -> dict[str, list[str]]:
    """Classifiers in a table of predictions, and the single and joint attributes each of them covers."""
    names = sorted({name.split("/")[0] for name in classified.column_names if "/" in name})
    known = {
        name: {attribute for attribute in ATTRIBUTES if class_columns(attribute, name)[0] in classified.column_names}
        for name in names
    }
    return {name: [joint for joint in attribute_sets() if set(joint.split("+")) <= known[name]] for name in names}


def bias_table(classified: pa.Table, key: RunKey, align: Mapping[str, Mapping[str, float]]) -> pa.Table:
    """Measure every prompt by every classifier in the predictions.

    Args:
        classified: predictions per image (schema CLASSIFIED).
        key: which evaluation of which run they are.
        align: the run's target distributions, {attribute: {class: share}}; the others are measured against uniform.

    Returns:
        rows of schema BIAS, prompts in the order of the images; bias is null for a prompt without any face.
    """
    prompts, prompt_index = number_prompts(classified["prompt_id"].to_pylist())
    rows = [
        row
        for classifier, attributes in readers(classified).items()
        for attribute in attributes
        for row in _prompt_rows(
            attribute,
            count_cells(prompt_index, hard_classes(classified, classifier, attribute), len(prompts), attribute),
            cell_shares(attribute, align),
            [
                {**asdict(key), "prompt_id": prompt, "classifier": classifier, "attribute": attribute}
                for prompt in prompts
            ],
        )
    ]
    return to_table({name: [row[name] for row in rows] for name in BIAS.names}, BIAS)


def number_prompts(prompt_ids: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Distinct prompts in order of appearance, and each image's index among them."""
    numbers: dict[str, int] = {}
    index = np.array([numbers.setdefault(prompt, len(numbers)) for prompt in prompt_ids], np.int64)
    return list(numbers), index


def count_cells(
    prompt_index: NDArray[np.int64], classes: NDArray[np.int64], prompts: int, attribute: str
) -> NDArray[np.int64]:
    """Images per prompt and cell (prompts, K + 1); the last column counts images without a face."""
    width = len(cells(attribute)) + 1
    slots = prompt_index * width + np.where(classes == NO_FACE, width - 1, classes)
    return np.bincount(slots, minlength=prompts * width).reshape(prompts, width)


def frequencies_of(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Shares (..., K) over images with a face from counts (..., K + 1) as `count_cells` gives; nan without a face."""
    faces = counts[..., :-1].sum(axis=-1, keepdims=True)
    return np.divide(counts[..., :-1], faces, out=np.full(counts[..., :-1].shape, np.nan), where=faces > 0)


def _prompt_rows(
    attribute: str, counts: NDArray[np.int64], target: NDArray[np.float64], keys: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    names, shares = cells(attribute), frequencies_of(counts)
    faces = counts[:, :-1].sum(axis=1).tolist()
    biases, distances = bias(shares), target_distance(shares, target)
    return [
        {
            **key,
            "frequencies": list(zip(names, shares[prompt].tolist(), strict=True)) if faces[prompt] else [],
            "bias": float(biases[prompt]) if faces[prompt] else None,
            "n_images": int(counts[prompt].sum()),
            "n_faces": faces[prompt],
            "floor": sampling_floor(faces[prompt], len(names)) if faces[prompt] else None,
            "target": list(zip(names, target.tolist(), strict=True)),
            "target_distance": float(distances[prompt]) if faces[prompt] else None,
            "target_floor": target_floor(faces[prompt], tuple(target.tolist())) if faces[prompt] else None,
        }
        for prompt, key in enumerate(keys)
    ]
