"""What a perfect generator would score: finite samples alone give bias.

Both measures are means of one-dimensional absolute differences, so their expectations under i.i.d. sampling are exact
sums over binomial distributions, for any number of classes; no simulation is needed.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom


@cache
def sampling_floor(images: int, classes: int) -> float:
    """Expected bias(P) of `images` independent draws from the uniform distribution over `classes`; nan without images.

    All pairs are alike, so it is E|n_1 - n_2| / n. Given that m draws fall on either of the two classes, with
    m ~ Bin(n, 2/K), their difference is a simple random walk of m steps: E|S_m| = m C(m-1, (m-1)//2) / 2^(m-1).
    About sqrt(2 / (pi n)) for K = 2: .10 with 60 images.
    """
    if images == 0:
        return float("nan")
    steps = np.arange(images + 1)
    weights = binom.pmf(steps, images, 2 / classes)
    return float(weights @ _mean_walk_distance(images)) / images


@cache
def target_floor(images: int, shares: tuple[float, ...]) -> float:
    """Expected total variation distance between `images` independent draws from `shares` and `shares` itself."""
    if images == 0:
        return float("nan")
    counts = np.arange(images + 1)
    deviations = [binom.pmf(counts, images, share) @ np.abs(counts / images - share) for share in shares]
    return float(np.sum(deviations)) / 2


def _mean_walk_distance(steps: int) -> NDArray[np.float64]:
    """E|S_m| of a simple random walk for m = 0..steps, by its recursion: it grows by P(S_m = 0) at even m."""
    distance = np.zeros(steps + 1)
    at_origin = 1.0  # P(S_m = 0), m even
    for step in range(1, steps + 1):
        distance[step] = distance[step - 1] + (at_origin if step % 2 else 0.0)
        if step % 2:
            at_origin *= step / (step + 1)
    return distance
