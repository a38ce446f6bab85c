"""Differences and ratios of means, prompt by prompt where prompts are shared, with bootstrap intervals and verdicts.

Two runs look at the same prompts with the same noises, so most of what differs between prompts is common to both.
Drawing prompts anew, and with each all that was measured on it, keeps that in common: the interval is for the mean
of the differences. Images within a prompt need no draw of their own, as their noise is part of how prompts differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from distalign.measure.bootstrap import LEVEL, SCORE
from distalign.store.seeds import stable_seed

DRAWS = 10_000
FURTHEST = 3.09  # standard deviations; beyond are 10 of the draws
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number and what it might as well have been: bootstrap replicates (R,).

    `n` independent observations of a kind (`unit`: prompts, iterations, ...) went into it. `reach` says how many
    standard deviations of the replicates its 95% interval extends; infinite where nothing is known of its spread.
    """

    value: float
    replicates: Array
    n: int
    unit: str
    reach: float = SCORE


def estimate_means(samples: Sequence[Mapping[str, float]], unit: str = "prompts") -> list[Estimate]:
    """The mean of each sample, with replicates that are paired where samples share their keys.

    Args:
        samples: key (prompt id) -> value. Samples of which one shares half of its keys or more with another are
            averaged over the keys they have in common and drawn together; others are independent.
        unit: what a key is.

    Returns:
        one estimate per sample; nan without keys. A bootstrap of n observations is too narrow by sqrt((n - 1) / n)
        and by what Student's t exceeds the normal distribution; `reach` makes up for both (Hesterberg 2015,
        section 4.5).
    """
    estimates: dict[int, Estimate] = {}
    for block, keys in _blocks(samples):
        values = np.array([[samples[index][key] for index in block] for key in keys]).reshape(len(keys), len(block))
        n = len(keys)
        means = _resampled(values, stable_seed("paired", *keys)) if keys else np.full((DRAWS, len(block)), np.nan)
        reach = float(np.sqrt(n / (n - 1)) * t.ppf((1 + LEVEL) / 2, n - 1)) if n > 1 else float("inf")
        for column, index in enumerate(block):
            value = float(values[:, column].mean()) if keys else float("nan")
            estimates[index] = Estimate(value, means[:, column], n, unit, reach)
    return [estimates[index] for index in range(len(samples))]


def estimate_known(value: float, low: float, high: float, n: int, unit: str, *about: str) -> Estimate:
    """A number whose 95% interval is known already, as normally distributed; `about` names it, for its own draws."""
    deviations = np.random.default_rng(stable_seed("known", *about)).standard_normal(DRAWS)
    return Estimate(value, value + deviations * (high - low) / (2 * SCORE), n, unit)


def combine(first: Estimate, second: Estimate, factor: float = -1.0) -> Estimate:
    """Add `factor` times the second to the first; n is that of the smaller, whose interval also reaches further."""
    value = first.value + factor * second.value
    return _joint(value, first.replicates + factor * second.replicates, first, second)


def scale(estimate: Estimate, factor: float, offset: float) -> Estimate:
    """Multiply by `factor`, then add `offset`."""
    return replace(estimate, value=factor * estimate.value + offset, replicates=factor * estimate.replicates + offset)


def ratio(first: Estimate, second: Estimate) -> Estimate | None:
    """Divide the first by the second; None where that cannot be told from zero, and nothing is known of the ratio."""
    same_side = np.mean(second.replicates * second.value > 0)
    if not same_side > (1 + LEVEL) / 2:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        replicates = first.replicates / second.replicates
    return _joint(first.value / second.value, replicates, first, second)


def interval(estimate: Estimate) -> tuple[float, float] | None:
    """95% percentile interval; None with fewer than two observations.

    With five or fewer the percentiles lie further out than the replicates show. There it is Student's interval.
    """
    if np.isinf(estimate.reach) or np.isnan(estimate.value):
        return None
    if estimate.reach > FURTHEST:
        half = estimate.reach * float(np.nanstd(estimate.replicates))
        return estimate.value - half, estimate.value + half
    tail = float(norm.cdf(-estimate.reach))
    low, high = np.nanquantile(estimate.replicates, [tail, 1 - tail])
    return float(low), float(high)


def verdict(
    limits: tuple[float, float],
    below: float | None = None,
    above: float | None = None,
    between: Sequence[float] | None = None,
) -> str:
    """Whether an interval lies entirely where it should (holds), entirely elsewhere (does not hold), or neither.

    An effect that is exactly a bound is neither below nor above it.
    """
    low, high = limits
    if between is not None:
        inside = between[0] <= low and high <= between[1]
        outside = high < between[0] or low > between[1]
    elif below is not None:
        inside, outside = high < below, low >= below
    elif above is not None:
        inside, outside = low > above, high <= above
    else:
        raise ValueError("a verdict needs a bound")
    return HOLDS if inside else FAILS if outside else UNDECIDED


def overall(verdicts: Sequence[str]) -> str:
    """A claim holds if all of its checks do, and does not if any does not."""
    if FAILS in verdicts:
        return FAILS
    return HOLDS if set(verdicts) == {HOLDS} else UNDECIDED


def _joint(value: float, replicates: Array, first: Estimate, second: Estimate) -> Estimate:
    fewer = min(first, second, key=lambda it: it.n)
    return Estimate(value, replicates, fewer.n, fewer.unit, max(first.reach, second.reach))


def _blocks(samples: Sequence[Mapping[str, float]]) -> list[tuple[list[int], list[str]]]:
    """Samples that are drawn together, by index, and the keys they have in common, in the order of the first."""
    blocks: list[tuple[list[int], list[str]]] = []
    for index, sample in enumerate(samples):
        for position, (members, keys) in enumerate(blocks):
            common = [key for key in keys if key in sample]
            if common and 2 * len(common) >= max(len(keys), len(sample)):
                blocks[position] = ([*members, index], common)
                break
        else:
            blocks.append(([index], list(sample)))
    return blocks


def _resampled(values: Array, seed: int) -> Array:
    """Means (R, Q) over rows of values (P, Q), the rows drawn anew."""
    count = len(values)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=DRAWS)
    means: Array = drawn @ values / count
    return means
