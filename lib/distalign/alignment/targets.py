"""Which class each generated face should have: expected optimal transport to the target distribution (eqs. 4-5)."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom, multinomial

# Up to this many count vectors the expectation is summed exactly: 32 images and 4 classes, the paper's race run, have
# 6,545 and take about as many assignments of 32 faces.
ENUMERATION_LIMIT = 7000
TINY_SHARE = 1e-12  # where a class has no probability at all, in place of the logarithm of 0


def alignment_targets(
    probabilities: Mapping[str, np.ndarray],
    shares: Mapping[str, Sequence[float]],
    found: np.ndarray,
    confidence: float,
    draws: int,
    seed: int,
    fixed: bool = False,
) -> dict[str, np.ndarray]:
    """Target class of every image and attribute, (N,) int64; -1 where there is none.

    There is none for images without a face, which take no part in the transport, and where the expected transport
    is less certain of its class than `confidence`.

    Args:
        probabilities: the classifier's (N, K) for each attribute; rows of images without a face are ignored.
        shares: the target distribution over the K classes of each attribute; attributes are independent.
        found: (N,) bool, whether a face was found.
        confidence: the paper's C.
        draws: draws of the target when there are too many count vectors to enumerate.
        seed: of those draws.
        fixed: transport to one set of labels, as near to the shares as so many faces can be, instead of in expectation
            over draws (the alternative the paper discusses after eq. 5); every face then has a target.
    """
    faces = {attribute: np.asarray(probabilities[attribute], np.float64)[found] for attribute in shares}
    if fixed:
        plan = fixed_transport(faces, shares)
    elif list(map(len, shares.values())) == [2]:
        ((attribute, share),) = shares.items()
        upper = binary_targets(faces[attribute][:, 1], share[1])
        plan = {attribute: np.stack([1 - upper, upper], axis=1)}
    else:
        plan = expected_transport(faces, shares, draws, seed)
    targets = {attribute: np.full(len(found), -1) for attribute in shares}
    for attribute, q in plan.items():
        targets[attribute][found] = assign(q, confidence)
    return targets


def mean_slopes(
    probabilities: Mapping[str, np.ndarray], shares: Mapping[str, Sequence[float]], found: np.ndarray
) -> dict[str, np.ndarray]:
    """Slopes (N, K) of N KL(p || q) in the class probabilities p_b of each image, for each attribute.

    p is the mean of p_b over the n images with a face, q the target. With slopes N / n log(p / q), the sum over these
    images of <p_b, slope> has the divergence's value, and its gradient in p_b, but for a constant over classes, which
    changes nothing as probabilities sum to 1. Zeros for images without a face.

    Args:
        probabilities: the classifier's (N, K) for each attribute, of the images of one prompt.
        shares: the target distribution over the K classes of each attribute, all above 0.
        found: (N,) bool, whether a face was found.
    """
    slopes = {}
    for attribute, share in shares.items():
        p = np.asarray(probabilities[attribute], np.float64)
        slopes[attribute] = np.zeros_like(p)
        if found.any():
            mean = p[found].mean(axis=0).clip(min=TINY_SHARE)
            slopes[attribute][found] = len(p) / found.sum() * np.log(mean / np.asarray(share))
    return slopes


def assign(q: np.ndarray, confidence: float) -> np.ndarray:
    """Most likely class of each row of q (n, K), or -1 where its probability is below `confidence`."""
    return np.where(q.max(axis=1, initial=0) >= confidence, q.argmax(axis=1), -1)


def binary_targets(p: np.ndarray, share: float) -> np.ndarray:
    """Probability (n,) that each face is transported to class 1, for K = 2 and any target share of class 1.

    The optimal plan sends the n0 faces with the lowest p, the probability (n,) of class 1, to class 0, and
    n0 ~ Binomial(n, 1 - share); the face of rank r (from 0) gets class 1 iff n0 <= r. Equal p are ranked in the order
    they come in, so that saturated classifiers still give half of the faces each class.
    """
    rank = np.empty(len(p), np.int64)
    rank[np.argsort(p, kind="stable")] = np.arange(len(p))
    return np.asarray(binom.cdf(rank, len(p), 1 - share))


def expected_transport(
    probabilities: Mapping[str, np.ndarray], shares: Mapping[str, Sequence[float]], draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Expected optimal transport plan (eq. 5) from n faces to draws of the target, as q (n, K) for each attribute.

    Cells are combinations of classes, one of each attribute. A draw is n independent labels; what matters of it is how
    many fall in each cell. The cost of a face in a cell is the Euclidean distance between its class probabilities and
    the cell's one-hot vectors, over all attributes together (eq. 4). The expectation is summed over all count vectors
    where these are few, else estimated from `draws` draws of the generator seeded by `seed`, each distinct count vector
    being solved once.
    """
    return _transport(probabilities, shares, lambda n, cells: _count_vectors(n, cells, draws, seed))


def fixed_transport(
    probabilities: Mapping[str, np.ndarray], shares: Mapping[str, Sequence[float]]
) -> dict[str, np.ndarray]:
    """Optimal transport plan (eq. 4) to one set of n labels with the shares of the target, as q (n, K) of 0 and 1.

    Where n faces cannot have the shares exactly, the cells that lack most get one more, the first of equals first.
    """
    return _transport(probabilities, shares, lambda n, cells: [(_nearest_counts(n, cells), 1.0)])


def _transport(
    probabilities: Mapping[str, np.ndarray],
    shares: Mapping[str, Sequence[float]],
    count_vectors: Callable[[int, np.ndarray], Iterable[tuple[np.ndarray, float]]],
) -> dict[str, np.ndarray]:
    sizes = [len(share) for share in shares.values()]
    cells = [cell for cell in itertools.product(*map(range, sizes)) if _cell_share(cell, shares) > 0]
    cell_shares = np.array([_cell_share(cell, shares) for cell in cells])
    cost = _cost_matrix(probabilities, list(shares), cells)
    n = len(cost)
    plan = np.zeros((n, len(cells)))
    rows = np.arange(n)
    for counts, weight in count_vectors(n, cell_shares / cell_shares.sum()) if n else ():
        column_cell = np.repeat(np.arange(len(cells)), counts)
        _, column = linear_sum_assignment(cost[:, column_cell])
        plan[rows, column_cell[column]] += weight
    q = {attribute: np.zeros((n, size)) for attribute, size in zip(shares, sizes, strict=True)}
    for cell, mass in zip(cells, plan.T, strict=True):
        for attribute, label in zip(shares, cell, strict=True):
            q[attribute][:, label] += mass
    return q


def _nearest_counts(n: int, shares: np.ndarray) -> np.ndarray:
    """Whole numbers (cells,) that sum to n and are nearest to n x shares (largest remainders)."""
    exact = n * shares
    counts = np.floor(exact + 1e-9).astype(np.int64)
    lacking = np.argsort(counts - exact, kind="stable")[: n - counts.sum()]
    counts[lacking] += 1
    return counts


def _cell_share(cell: tuple[int, ...], shares: Mapping[str, Sequence[float]]) -> float:
    return math.prod(share[label] for share, label in zip(shares.values(), cell, strict=True))


def _cost_matrix(
    probabilities: Mapping[str, np.ndarray], attributes: list[str], cells: list[tuple[int, ...]]
) -> np.ndarray:
    """Distances (n, cells) between faces and cells."""
    squared: np.ndarray | float = 0.0
    for position, attribute in enumerate(attributes):
        p = np.asarray(probabilities[attribute], np.float64)
        corners = np.eye(p.shape[1])[[cell[position] for cell in cells]]
        squared = squared + ((p[:, None, :] - corners[None]) ** 2).sum(axis=2)
    return np.sqrt(squared)


def _count_vectors(n: int, shares: np.ndarray, draws: int, seed: int) -> Iterator[tuple[np.ndarray, float]]:
    """Count vectors (cells,) summing to n with their weights, which sum to 1."""
    cells = len(shares)
    if math.comb(n + cells - 1, cells - 1) <= ENUMERATION_LIMIT:
        bars = np.array(list(itertools.combinations(range(n + cells - 1), cells - 1)), np.int64)
        edges = np.pad(bars, ((0, 0), (1, 1)), constant_values=((0, 0), (-1, n + cells - 1)))
        vectors = np.diff(edges, axis=1) - 1
        weights = multinomial.pmf(vectors, n, shares)
    else:
        drawn = np.random.default_rng(seed).multinomial(n, shares, size=draws)
        vectors, repeats = np.unique(drawn, axis=0, return_counts=True)
        weights = repeats / draws
    return zip(vectors, weights.tolist(), strict=True)
