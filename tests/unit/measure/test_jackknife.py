import numpy as np
import pytest

from distalign.measure.jackknife import interval, jackknife_variance


def leaving(first, second):
    """The difference of the means of two sets of numbers, each a group of its own."""

    def measure(i, j):
        a = first if i is None else np.delete(first, i)
        b = second if j is None else np.delete(second, j)
        return float(a.mean() - b.mean())

    return measure


def test_variance_of_a_mean_is_the_textbook_one():
    first, second = np.random.default_rng(0).standard_normal((2, 12))
    of_mean = [x.var(ddof=1) / 12 for x in (first, second, first - second)]
    assert jackknife_variance(leaving(first, second), (12, 12), paired=False) == pytest.approx(of_mean[0] + of_mean[1])
    assert jackknife_variance(leaving(first, second), (12, 12), paired=True) == pytest.approx(of_mean[2])
    assert np.isnan(jackknife_variance(leaving(first[:1], second[:1]), (1, 1), paired=True))


def test_coverage():
    generator = np.random.default_rng(1)
    covered = []
    for _ in range(400):
        first, second = generator.standard_normal((2, 8))
        low, high = interval(first.mean(), jackknife_variance(leaving(first, 0 * second), (8, 8), True), 8)
        covered.append(low < 0 < high)
    assert 0.92 < np.mean(covered) < 0.98
