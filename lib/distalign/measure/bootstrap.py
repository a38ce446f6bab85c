"""Bootstrap confidence intervals over prompts and images, vectorised, with fixed seeds.

A run is measured on some prompts out of many, each with some images out of many. Replicates draw both anew: images
within a prompt, then prompts. Drawing images adds noise, and noise adds to a bias, so replicates sit above the
estimate; `interval` moves them back by that excess. The interval is then for what such a measurement, with this many
images, gives on average over prompts; how much of that is finite sampling the floor says. Noise of images is counted
within the prompts and once more between them, so intervals are rather too wide than too narrow.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
LEVEL = 0.95
SCORE = 1.959964  # of the standard normal distribution at LEVEL
BLOCK = 2_000_000  # numbers drawn at a time: 16 MB


def resample_counts(counts: NDArray[np.integer], seed: int, draws: int = DRAWS) -> NDArray[np.int64]:
    """Draw each prompt's images anew, given how many fell into each cell.

    Args:
        counts: (prompts, cells).
        seed: of the generator.
        draws: number of replicates R.

    Returns:
        (R, prompts, cells) counts, each row with the prompt's number of images.
    """
    totals = counts.sum(axis=-1)
    shares = counts / np.maximum(totals, 1)[:, None]
    generator = np.random.default_rng(seed)
    return generator.multinomial(totals, shares, size=(draws, len(counts)))


def resample_means(values: Sequence[NDArray[np.floating]], seed: int, draws: int = DRAWS) -> NDArray[np.float64]:
    """Draw each prompt's images anew and average: (R, prompts) from an array of values per prompt; nan if empty."""
    generator = np.random.default_rng(seed)
    means = np.full((draws, len(values)), np.nan)
    for prompt, own in enumerate(values):
        step = max(1, BLOCK // max(1, len(own)))
        for start in range(0, draws if len(own) else 0, step):
            size = (min(step, draws - start), len(own))
            means[start : start + step, prompt] = own[generator.integers(len(own), size=size)].mean(axis=1)
    return means


def resample_prompts(replicates: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Draw prompts anew on top of images: the mean over prompts (R,) from replicates (R, prompts) of each prompt.

    Every slot takes its images from another replicate, so that a prompt drawn twice has different images.
    """
    draws, prompts = replicates.shape
    chosen = np.random.default_rng(seed).integers(prompts, size=(draws, prompts))
    images = (np.arange(draws)[:, None] + np.arange(prompts)) % draws
    drawn = replicates[images, chosen]
    known = ~np.isnan(drawn)
    sums = np.where(known, drawn, 0.0).sum(axis=1)
    return np.divide(sums, known.sum(axis=1), out=np.full(draws, np.nan), where=known.any(axis=1))


def wilson(shares: NDArray[np.float64], counts: NDArray[np.integer]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95% score interval of shares (P,) of counts (P,): unlike the bootstrap, of some width at 0 and 1 too."""
    number = np.where(counts > 0, counts, np.nan)
    centre = (shares + SCORE**2 / (2 * number)) / (1 + SCORE**2 / number)
    spread = np.sqrt(shares * (1 - shares) / number + (SCORE / (2 * number)) ** 2)
    half = SCORE / (1 + SCORE**2 / number) * spread
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def interval(
    estimate: NDArray[np.float64], replicates: NDArray[np.float64], bounds: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95% interval: percentiles of the replicates, moved so that their mean is the estimate, kept within `bounds`.

    Args:
        estimate: (...).
        replicates: (R, ...).
        bounds: the values the measure can take.

    Returns:
        low and high, (...); nan where there is nothing to go by.
    """
    empty = np.isnan(replicates).all(axis=0) | np.isnan(estimate)
    usable = np.where(empty, 0.0, replicates)
    excess = np.nanmean(usable, axis=0) - estimate
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(usable, [tail, 1 - tail], axis=0) - excess
    return (
        np.where(empty, np.nan, np.clip(low, *bounds)),
        np.where(empty, np.nan, np.clip(high, *bounds)),
    )
