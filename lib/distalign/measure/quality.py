"""Image quality: how far the DINO features of all generated images are from those of real pictures.

Two distances between sets of features, both without the network in them: KID, the unbiased squared maximum mean
discrepancy of Bińkowski et al. (2018), and the Fréchet distance of Heusel et al. (2017), here on DINOv2 features as
Stein et al. (2023) recommend. Features are taken as the network gives them, as in these papers: on unit vectors the
term x·y/d of KID's kernel would be at most 1/d, and the kernel hardly more than linear.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from distalign.measure.jackknife import jackknife_variance

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

BLOCK = 1024  # rows of a kernel matrix at a time


@dataclass(frozen=True)
class Sample:
    """A set of images, drawn stratum by stratum.

    `features` (n, d) and the `strata` (n,) of the images; of each stratum the `groups` (S,) it belongs to, which are
    left out whole for intervals (prompts), and the `shares` (S,) with which it counts. They sum to 1, and images of a
    stratum share its own evenly.
    """

    features: Array
    strata: Indices
    groups: Indices
    shares: Array

    @property
    def weights(self) -> Array:
        """Share of each image (n,)."""
        result: Array = (self.shares / np.bincount(self.strata, minlength=len(self.shares)))[self.strata]
        return result

    def without(self, group: int | None) -> "Sample":
        """The sample in which a group does not count; None leaves out none."""
        kept = np.where(self.groups == group, 0.0, self.shares) if group is not None else self.shares
        return replace(self, shares=kept / kept.sum())


def even(features: Array, groups: Indices) -> Sample:
    """A sample whose groups 0..G-1 are its strata and count equally."""
    number = int(groups.max()) + 1
    return Sample(features, groups, np.arange(number), np.full(number, 1 / number))


def kid(x: Sample, y: Sample, paired: bool = True) -> tuple[float, float]:
    """Unbiased squared MMD with the kernel (x·y/d + 1)^3: zero on average for two sets of one distribution.

    The mean over pairs within x, plus the same of y, minus twice that across. Pairs count by the shares of their
    strata, and no image is paired with itself: where strata have fixed numbers of images, two images drawn at random
    without this would less often be of one stratum within a set than across, and KID negative on average.

    Args:
        x: one set.
        y: the other, of the same dimension.
        paired: whether groups of x and y belong together.

    Returns:
        KID, not scaled, and its variance; nan if a stratum has a single image.
    """
    within_x, within_y, across = _pair_means(x, x), _pair_means(y, y), _pair_means(x, y)

    def without(i: int | None, j: int | None) -> float:
        a, b = x.without(i).shares, y.without(j).shares
        return float(a @ within_x @ a + b @ within_y @ b - 2 * a @ across @ b)

    return without(None, None), jackknife_variance(without, _sizes(x, y), paired)


def _pair_means(x: Sample, y: Sample) -> Array:
    """Mean kernel between the images of every stratum of x and of every one of y; no image with itself."""
    rows, columns = _memberships(x), _memberships(y)
    sums, dimension = np.zeros((rows.shape[1], columns.shape[1])), x.features.shape[1]
    for start in range(0, len(x.features), BLOCK):
        part = slice(start, start + BLOCK)
        sums += rows[part].T @ (_kernel(x.features[part] @ y.features.T, dimension) @ columns)
    pairs = np.outer(rows.sum(axis=0), columns.sum(axis=0))
    if x is y:
        sums -= np.diag(rows.T @ _kernel((x.features**2).sum(axis=1), dimension))
        pairs -= np.diag(rows.sum(axis=0))
    return np.divide(sums, pairs, out=np.full(sums.shape, np.nan), where=pairs > 0)


def _memberships(sample: Sample) -> Array:
    """(n, S): 1 in the column of the image's stratum."""
    result: Array = (sample.strata[:, None] == np.arange(len(sample.shares))).astype(np.float64)
    return result


def _kernel(products: Array, dimension: int) -> Array:
    result: Array = (products / dimension + 1) ** 3
    return result


def frechet_distance(x: Sample, y: Sample, paired: bool = True) -> tuple[float, float]:
    """Squared Fréchet distance of the Gaussians with the means and covariances of two sets.

    |m - w|² + tr(A) + tr(B) - 2 tr((A B)^½). With A = FᵀF and B = GᵀG the last trace is the sum of the singular values
    of F Gᵀ: no root of a matrix, and exact where there are fewer images than dimensions and A or B is singular. Few
    images make it larger, so it compares only sets of one size.

    Args:
        x: one set.
        y: the other, of the same dimension.
        paired: whether groups of x and y belong together.

    Returns:
        the distance, at least 0, and its variance.
    """

    def without(i: int | None, j: int | None) -> float:
        (m, f), (w, g) = _moments(x.without(i)), _moments(y.without(j))
        shared = np.linalg.svd(f @ g.T, compute_uv=False).sum()
        return max(0.0, float(((m - w) ** 2).sum() + (f**2).sum() + (g**2).sum() - 2 * shared))

    return without(None, None), jackknife_variance(without, _sizes(x, y), paired)


def _moments(sample: Sample) -> tuple[Array, Array]:
    """Mean (d,) and a factor F (k, d) of the covariance FᵀF, with the images' shares."""
    counted = sample.weights > 0
    weights, features = sample.weights[counted, None], sample.features[counted]
    mean: Array = (weights * features).sum(axis=0)
    spread = np.sqrt(weights / (1 - (weights**2).sum())) * (features - mean)
    return mean, np.asarray(np.linalg.qr(spread, mode="r"))


def _sizes(x: Sample, y: Sample) -> tuple[int, int]:
    """Number of groups of each."""
    return len(np.unique(x.groups)), len(np.unique(y.groups))
