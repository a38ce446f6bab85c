import numpy as np
import pytest

from distalign.measure.bias import bias, frequencies_of
from distalign.measure.bootstrap import interval, resample_counts, resample_means, resample_prompts


def test_counts_keep_their_totals_and_shares():
    counts = np.array([[30, 20, 10], [0, 5, 0], [0, 0, 0]])
    drawn = resample_counts(counts, seed=1, draws=2000)
    assert drawn.shape == (2000, 3, 3)
    assert (drawn.sum(axis=2) == [60, 5, 0]).all()
    assert drawn[:, 0].mean(axis=0) == pytest.approx([30, 20, 10], abs=0.5)
    assert (drawn[:, 1] == [0, 5, 0]).all()


def test_means_have_the_standard_error_of_the_mean():
    values = [np.arange(50.0), np.array([]), np.array([3.0])]
    drawn = resample_means(values, seed=1, draws=4000)
    assert drawn[:, 0].std() == pytest.approx(values[0].std() / np.sqrt(50), rel=0.05)
    assert np.isnan(drawn[:, 1]).all()
    assert (drawn[:, 2] == 3).all()


def test_prompts_add_their_own_spread():
    replicates = np.tile(np.arange(10.0), (4000, 1))  # images agree, prompts do not
    drawn = resample_prompts(replicates, seed=2)
    assert drawn.std() == pytest.approx(np.arange(10).std() / np.sqrt(10), rel=0.05)


def test_prompts_without_a_value_are_left_out():
    replicates = np.column_stack([np.full(100, 2.0), np.full(100, np.nan)])
    drawn = resample_prompts(replicates, seed=0)
    assert np.nanmin(drawn) == np.nanmax(drawn) == 2
    assert np.isnan(drawn).any()  # both slots drew the empty prompt


def test_same_seed_same_interval():
    counts = np.array([[40, 20], [10, 50]])
    first, second = (resample_counts(counts, seed=3) for _ in range(2))
    assert (first == second).all()
    assert not (first == resample_counts(counts, seed=4)).all()


def test_interval_surrounds_the_estimate_and_stays_in_bounds():
    replicates = np.linspace(0.1, 0.3, 1001)  # noise moved them up from .15
    low, high = interval(np.array(0.15), replicates, (0, 1))
    assert (low, high) == (pytest.approx(0.055), pytest.approx(0.245))
    assert interval(np.array(0.01), replicates, (0, 1))[0] == 0
    assert np.isnan(interval(np.array(np.nan), np.full(5, np.nan), (0, 1))).all()


@pytest.mark.parametrize(("spread", "least"), [(0.0, 0.95), (0.4, 0.9)])
def test_coverage(spread, least):
    """In repeated studies of 20 prompts and 60 images the interval holds what such studies give on average."""
    generator = np.random.default_rng(5)
    share = lambda: np.clip(0.5 + spread * generator.standard_normal(20), 0.02, 0.98)  # noqa: E731
    study = lambda: generator.binomial(60, share())  # noqa: E731
    expected = np.mean([np.abs(2 * study() / 60 - 1).mean() for _ in range(4000)])
    covered = []
    for trial in range(120):
        women = study()
        counts = np.column_stack([women, 60 - women, 0 * women])
        replicates = bias(frequencies_of(resample_counts(counts, seed=trial, draws=300)))
        estimate = np.array(bias(frequencies_of(counts)).mean())
        low, high = interval(estimate, resample_prompts(replicates, seed=trial), (0, 1))
        assert low <= estimate <= high
        covered.append(low <= expected <= high)
    print(f"coverage {np.mean(covered):.3f} with spread {spread}")
    assert np.mean(covered) >= least
