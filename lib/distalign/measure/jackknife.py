"""Jackknife intervals: for measures of all images together, which are no means over prompts."""

from collections.abc import Callable

import numpy as np
from scipy.stats import t

from distalign.measure.bootstrap import LEVEL

Leaving = Callable[[int | None, int | None], float]


def jackknife_variance(measure: Leaving, groups: tuple[int, int], paired: bool) -> float:
    """Variance of a measure of two sets by leaving out one group (all images of a prompt) at a time.

    Args:
        measure: of the sets without group i of the first and group j of the second; None leaves out none.
        groups: number of groups of either set.
        paired: whether equal groups belong together and are left out together; if not, variances of both sides add.

    Returns:
        the variance; nan where a side has a single group.
    """
    if min(groups) < 2:
        return float("nan")
    if paired:
        return _variance([measure(group, group) for group in range(groups[0])])
    first = _variance([measure(group, None) for group in range(groups[0])])
    return first + _variance([measure(None, group) for group in range(groups[1])])


def _variance(values: list[float]) -> float:
    return (len(values) - 1) * float(np.var(values))


def interval(estimate: float, variance: float, groups: int) -> tuple[float, float]:
    """95% interval: the estimate and t quantiles of its standard error, with as many groups less one degrees."""
    half = float(t.ppf((1 + LEVEL) / 2, max(1, groups - 1)) * np.sqrt(variance))
    return estimate - half, estimate + half
