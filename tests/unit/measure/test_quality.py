import itertools

import numpy as np
import pytest
from scipy.linalg import sqrtm

from distalign.measure import quality
from distalign.measure.quality import BLOCK, Sample, even


def normal(seed, images, dimension, mean=0.0, scale=1.0):
    return mean + scale * np.random.default_rng(seed).standard_normal((images, dimension))


def sample(x, groups=2):
    return even(x, np.arange(len(x)) % groups)


def kid(x, y):
    return quality.kid(x, y)[0]


def frechet_distance(x, y):
    return quality.frechet_distance(x, y)[0]


def kernel(a, b):
    return (a @ b / len(a) + 1) ** 3


def with_moments(x, mean, covariance):
    """The sample x moved and stretched so that its own mean and covariance are exactly these."""
    centred = x - x.mean(axis=0)
    whiten = np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(centred.T))))
    return sample(centred @ whiten.T @ np.linalg.cholesky(covariance).T + mean)


def test_kid_is_its_definition():
    """Where all images are of one stratum."""
    x, y = normal(0, 7, 4), normal(1, 5, 4, mean=0.5)
    within = [np.mean([kernel(a, b) for a, b in itertools.permutations(z, 2)]) for z in (x, y)]
    across = np.mean([kernel(a, b) for a, b in itertools.product(x, y)])
    assert kid(sample(x, 1), sample(y, 1)) == pytest.approx(sum(within) - 2 * across)


def test_kid_gives_every_pair_of_prompts_the_same_weight():
    x, y = sample(normal(0, 6, 3), 2), sample(normal(1, 8, 3, mean=0.5), 2)

    def mean_over_groups(first, second):
        means = []
        for g, h in itertools.product(range(2), repeat=2):
            a, b = (np.flatnonzero(s.strata == group) for s, group in ((first, g), (second, h)))
            pairs = [(i, j) for i, j in itertools.product(a, b) if first is not second or i != j]
            means.append(np.mean([kernel(first.features[i], second.features[j]) for i, j in pairs]))
        return np.mean(means)

    wanted = mean_over_groups(x, x) + mean_over_groups(y, y) - 2 * mean_over_groups(x, y)
    assert kid(x, y) == pytest.approx(wanted)


def repeated(x, counts):
    return sample(np.repeat(x, counts, axis=0), 1)


def test_shares_count_as_often_as_images():
    """A stratum of three times the share is like one with its images three times, up to pairs of copies."""
    x, y = normal(0, 2000, 3), normal(1, 2000, 3, mean=0.5)
    halves = np.arange(2000) // 1000
    uneven = Sample(x, halves, np.zeros(2, np.int64), np.array([0.75, 0.25]))
    copies = repeated(x, np.where(halves == 0, 3, 1))
    for measure in (kid, frechet_distance):
        assert measure(uneven, sample(y)) == pytest.approx(measure(copies, sample(y)), rel=0.02)
    nothing = Sample(x, halves, np.zeros(2, np.int64), np.array([1.0, 0.0]))
    assert frechet_distance(nothing, sample(y)) == pytest.approx(frechet_distance(sample(x[:1000], 1), sample(y)))
    assert kid(nothing, sample(y)) == pytest.approx(kid(sample(x[:1000], 1), sample(y)))


def test_a_group_left_out_does_not_count():
    x, y = sample(normal(0, 30, 4), 3), sample(normal(1, 24, 4), 3)
    rest = [even(s.features[s.strata != 1], s.strata[s.strata != 1] // 2) for s in (x, y)]
    for measure in (kid, frechet_distance):
        assert measure(x.without(1), y.without(1)) == pytest.approx(measure(*rest))


@pytest.mark.parametrize("measure", [quality.kid, quality.frechet_distance])
@pytest.mark.parametrize("paired", [True, False])
def test_variance_is_that_of_repeated_studies(measure, paired):
    """In 40 studies of 15 prompts with 6 images each; rather too large, for groups are few."""
    studies = [
        measure(sample(normal(2 * s, 90, 40, mean=0.3), 15), sample(normal(2 * s + 1, 90, 40), 15), paired)
        for s in range(40)
    ]
    values, variances = np.array(studies).T
    assert 0.7 < np.sqrt(variances.mean()) / values.std(ddof=1) < 2


def test_kid_does_not_depend_on_blocks():
    x, y = sample(normal(0, BLOCK + 3, 2), 3), sample(normal(1, 6, 2), 3)
    assert kid(x, y) == pytest.approx(kid(y, x))


@pytest.mark.parametrize("prompts", [1, 4])
def test_kid_of_one_distribution_is_zero_on_average_however_few_the_images(prompts):
    """Also where prompts differ much and both sets have the same number of images of each."""
    values = []
    for seed in range(600):
        centres = normal(seed + 9000, prompts, 5, scale=2)[np.arange(8) % prompts]
        x, y = (sample(centres + normal(2 * seed + side, 8, 5), prompts) for side in (0, 1))
        values.append(kid(x, y))
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0


def test_kid_of_single_images_is_unknown():
    assert np.isnan(kid(sample(normal(0, 3, 2), 3), sample(normal(1, 3, 2), 3)))


def test_frechet_distance_of_two_gaussians():
    x = with_moments(normal(0, 50, 1), np.array([2.0]), np.array([[9.0]]))
    y = with_moments(normal(1, 40, 1), np.array([0.5]), np.array([[1.0]]))
    assert frechet_distance(x, y) == pytest.approx(1.5**2 + (3 - 1) ** 2)
    a, b = np.diag([4.0, 1.0, 0.25]), np.diag([1.0, 9.0, 0.25])
    x = with_moments(normal(2, 50, 3), np.zeros(3), a)
    y = with_moments(normal(3, 60, 3), np.array([1.0, 0, 0]), b)
    assert frechet_distance(x, y) == pytest.approx(1 + (2 - 1) ** 2 + (1 - 3) ** 2)


def test_frechet_distance_is_its_formula():
    x, y = normal(0, 40, 6) @ normal(9, 6, 6), normal(1, 30, 6, mean=0.2) @ normal(8, 6, 6)
    root = sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    gap = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
    wanted = gap + np.trace(np.cov(x.T)) + np.trace(np.cov(y.T)) - 2 * np.trace(root)
    assert frechet_distance(sample(x), sample(y)) == pytest.approx(wanted)


def test_frechet_distance_with_fewer_images_than_dimensions():
    basis = np.linalg.qr(normal(5, 40, 3))[0]
    x, y = normal(0, 12, 3), normal(1, 9, 3, mean=0.4)
    low = frechet_distance(sample(x), sample(y))
    assert frechet_distance(sample(x @ basis.T), sample(y @ basis.T)) == pytest.approx(low)
    z = normal(2, 5, 300, scale=30)
    assert frechet_distance(sample(z), sample(z)) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(sample(z), sample(z + 0.1)) == pytest.approx(300 * 0.01)
