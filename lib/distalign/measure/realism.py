"""Measure the quality of an evaluation's images against real pictures, and what real pictures would score."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distalign.config.attributes import PAPER_ATTRIBUTES
from distalign.errors import UserError
from distalign.measure.bias import (
    NO_FACE,
    RunKey,
    cells,
    count_cells,
    frequencies_of,
    hard_classes,
    number_prompts,
    readers,
)
from distalign.measure.jackknife import interval
from distalign.measure.quality import Array, Indices, Sample, even, frechet_distance, kid
from distalign.store.parquet import RESULTS, to_table

REFERENCE_PART, FLOOR_PART = "reference", "floor"
KID_SCALE = 1000.0  # KID is reported times this
GROUPS = 24  # of photographs, which show no prompts
ALL = "+".join(PAPER_ATTRIBUTES)  # all attributes jointly
FEWEST = 2  # real pictures of a prompt and combination of classes


def quality_table(
    features: pa.Table, classified: pa.Table, classifier: str, reference: pa.Table, key: RunKey
) -> pa.Table:
    """Measure one evaluation of one run, and what real pictures would score in its images' place.

    Real pictures with labels count as often as the images show their combination of classes, prompt by prompt, so that
    the mix of people neither helps nor harms. Intervals are by the jackknife over prompts, left out one at a time with
    all their images, on both sides where the real pictures show the prompts. The bootstrap does not serve here: it
    draws images twice, which the Fréchet distance takes for a smaller set and a larger distance.

    Args:
        features: schema FEATURES, of all images of the evaluation.
        classified: schema CLASSIFIED, of the same images in the same order.
        classifier: who reads the images' classes.
        reference: schema REFERENCE.
        key: which evaluation of which run it is.

    Returns:
        rows of schema RESULTS, all about the whole run: kid (times 1000), fd_dino, and floor/ of both.

    Raises:
        UserError: the reference shows other prompts than the images, or a set has fewer than two.
    """
    prompts, numbers = number_prompts(features["prompt_id"].to_pylist())
    images = even(_vectors(features), numbers)
    mix = class_mix(classified, classifier, numbers, len(prompts))
    pictures, others = (_pictures(reference, part, prompts, mix) for part in (REFERENCE_PART, FLOOR_PART))
    paired = None not in reference["prompt_id"].to_pylist()
    rows = [
        {**asdict(key), **row}
        for prefix, sample in (("", images), ("floor/", others))
        for row in _compare(prefix, sample, pictures, paired)
    ]
    return to_table({name: [row[name] for row in rows] for name in RESULTS.names}, RESULTS)


def class_mix(classified: pa.Table, classifier: str, prompt_index: Indices, prompts: int) -> Array:
    """Share of each combination of all classes among a prompt's images with a face (prompts, K).

    Even for a prompt without a face, and for all where the classifier does not read every attribute.
    """
    if ALL not in readers(classified)[classifier]:
        return np.full((prompts, len(cells(ALL))), 1 / len(cells(ALL)))
    classes = hard_classes(classified, classifier, ALL)
    shares = frequencies_of(count_cells(prompt_index, classes, prompts, ALL))
    return np.where(np.isnan(shares), 1 / shares.shape[1], shares)


def _compare(prefix: str, x: Sample, y: Sample, paired: bool) -> Iterator[dict[str, Any]]:
    groups = min(len(np.unique(sample.groups)) for sample in (x, y))
    for metric, measure in (("kid", kid), ("fd_dino", frechet_distance)):
        value, variance = measure(x, y, paired)
        scale, least = (KID_SCALE, -np.inf) if metric == "kid" else (1.0, 0.0)
        low, high = interval(value, variance, groups)
        numbers = {"value": scale * value, "low": np.maximum(least, scale * low), "high": scale * high}
        known = {name: None if np.isnan(number) else float(number) for name, number in numbers.items()}
        about = {"prompt_id": None, "classifier": None, "metric": f"{prefix}{metric}", "std": None}
        yield {**about, **known, "n": len(x.features)}


def _pictures(reference: pa.Table, part: str, prompts: list[str], mix: Array) -> Sample:
    """One part of the reference: by prompt and classes where it has enough of each, by prompt, or of photographs."""
    table = reference.filter(pa.array(np.array(reference["part"].to_pylist()) == part))
    features, shown = _vectors(table), table["prompt_id"].to_pylist()
    if None in shown:
        return even(features, np.arange(len(shown)) % max(1, min(GROUPS, len(shown) // 2)))
    if set(shown) != set(prompts):
        raise UserError("the reference shows other prompts than the images; delete it and run again.")
    numbers = np.array([prompts.index(name) for name in shown], np.int64)
    kinds = _labels(table)
    strata = numbers * mix.shape[1] + kinds
    if NO_FACE in kinds or np.bincount(strata, minlength=mix.size).min() < FEWEST:
        return even(features, numbers)
    return Sample(features, strata, np.repeat(np.arange(len(prompts)), mix.shape[1]), mix.ravel() / len(prompts))


def _labels(table: pa.Table) -> Indices:
    """Combination of classes each picture shows, as an index into the cells of all attributes; -1 if not known."""
    names = {name: number for number, name in enumerate(cells(ALL))}
    columns = [table[attribute].to_pylist() for attribute in PAPER_ATTRIBUTES]
    joined = ["+".join(map(str, classes)) for classes in zip(*columns, strict=True)]
    return np.array([names.get(name, NO_FACE) for name in joined], np.int64)


def _vectors(table: pa.Table) -> NDArray[np.float64]:
    """The column `dino` as (n, d)."""
    if table.num_rows < 2:
        raise UserError(f"quality needs two images and two real pictures at least; there is {table.num_rows}.")
    values: Array = table["dino"].combine_chunks().flatten().to_numpy().astype(np.float64)
    return values.reshape(table.num_rows, -1)
