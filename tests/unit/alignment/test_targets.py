import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from distalign.alignment import targets
from distalign.alignment.targets import alignment_targets, assign, binary_targets, expected_transport, fixed_transport


def brute_force(
    probabilities: Mapping[str, np.ndarray], shares: Mapping[str, Sequence[float]]
) -> dict[str, np.ndarray]:
    """Every one of the cells**n label draws, transported one by one."""
    cells = list(itertools.product(*(range(len(share)) for share in shares.values())))
    n = len(next(iter(probabilities.values())))
    q = {attribute: np.zeros((n, len(share))) for attribute, share in shares.items()}
    for draw in itertools.product(cells, repeat=n):
        weight = math.prod(share[label] for cell in draw for share, label in zip(shares.values(), cell, strict=True))
        cost = np.zeros((n, n))
        for position, attribute in enumerate(shares):
            corners = np.eye(len(shares[attribute]))[[cell[position] for cell in draw]]
            cost += ((probabilities[attribute][:, None] - corners) ** 2).sum(axis=2)
        rows, columns = linear_sum_assignment(np.sqrt(cost))
        for row, column in zip(rows, columns, strict=True):
            for position, attribute in enumerate(shares):
                q[attribute][row, draw[column][position]] += weight
    return q


def faces(n: int, sizes: Mapping[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {attribute: rng.dirichlet(np.ones(k), size=n) for attribute, k in sizes.items()}


@pytest.mark.parametrize("n", range(1, 9))
@pytest.mark.parametrize("share", [0.5, 0.25, 0.9, 0.0, 1.0])
def test_binary_targets_against_brute_force(n: int, share: float) -> None:
    p = faces(n, {"a": 2}, seed=n)
    expected = brute_force(p, {"a": [1 - share, share]})["a"][:, 1]
    np.testing.assert_allclose(binary_targets(p["a"][:, 1], share), expected, atol=1e-12)


@pytest.mark.parametrize(
    "shares",
    [
        {"a": [0.5, 0.5]},
        {"a": [0.2, 0.3, 0.5]},
        {"a": [0.25, 0.25, 0.25, 0.25]},
        {"a": [0.5, 0.0, 0.3, 0.2]},
        {"a": [0.1, 0.2, 0.3, 0.15, 0.25]},
        {"a": [0.5, 0.5], "b": [0.75, 0.25]},
        {"a": [0.4, 0.6], "b": [0.2, 0.3, 0.5]},
    ],
    ids=str,
)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_expected_transport_against_brute_force(shares: dict[str, list[float]], n: int) -> None:
    n = min(n, int(math.log(4000, math.prod(map(len, shares.values())))))  # few enough draws to go one by one
    p = faces(n, {attribute: len(share) for attribute, share in shares.items()}, seed=n)
    expected = brute_force(p, shares)
    for attribute, q in expected_transport(p, shares, draws=0, seed=0).items():
        np.testing.assert_allclose(q, expected[attribute], atol=1e-12)


def test_monte_carlo_agrees_with_enumeration_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = {"gender": [0.5, 0.5], "race": [0.25] * 4}
    p = faces(4, {"gender": 2, "race": 4})
    exact = expected_transport(p, shares, draws=0, seed=0)
    monkeypatch.setattr(targets, "ENUMERATION_LIMIT", 0)
    first = expected_transport(p, shares, draws=4000, seed=1)
    for attribute, q in first.items():
        np.testing.assert_allclose(q, exact[attribute], atol=0.04)
        np.testing.assert_array_equal(q, expected_transport(p, shares, draws=4000, seed=1)[attribute])
        np.testing.assert_allclose(q.sum(axis=1), 1)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 12), share=st.floats(0.05, 0.95), seed=st.integers(0, 1000))
def test_the_binary_form_is_the_transport_and_keeps_the_target_share(n: int, share: float, seed: int) -> None:
    p = faces(n, {"a": 2}, seed)
    q = binary_targets(p["a"][:, 1], share)
    np.testing.assert_allclose(q, expected_transport(p, {"a": [1 - share, share]}, 0, 0)["a"][:, 1], atol=1e-9)
    assert q.sum() == pytest.approx(n * share)


def test_24_faces_as_in_the_paper() -> None:
    """Ranks 0-9 female, 14-23 male, the middle four ignored, at C = .8."""
    p = np.linspace(0.6, 0.9, 24)
    probabilities = {"gender": np.stack([1 - p, p], axis=1)}
    labels = alignment_targets(probabilities, {"gender": [0.5, 0.5]}, np.ones(24, bool), 0.8, 0, 0)["gender"]
    assert labels.tolist() == [0] * 10 + [-1] * 4 + [1] * 10


def test_a_saturated_classifier_still_splits() -> None:
    labels = assign(np.stack([1 - (q := binary_targets(np.ones(24), 0.5)), q], axis=1), 0.8)
    assert (labels == 0).sum() == (labels == 1).sum() == 10


def test_images_without_a_face_take_no_part() -> None:
    shares = {"gender": [0.5, 0.5], "race": [0.25] * 4}
    p = faces(5, {"gender": 2, "race": 4})
    found = np.array([True, False, True, True, False])
    labels = alignment_targets(p, shares, found, 0.3, 10, 0)
    only = alignment_targets({a: v[found] for a, v in p.items()}, shares, np.ones(3, bool), 0.3, 10, 0)
    for attribute in shares:
        assert (labels[attribute][~found] == -1).all()
        np.testing.assert_array_equal(labels[attribute][found], only[attribute])
    none = alignment_targets(p, shares, np.zeros(5, bool), 0.8, 10, 0)
    assert all((value == -1).all() for value in none.values())


@pytest.mark.parametrize("sizes", [{"a": 2}, {"a": 3}, {"a": 2, "b": 2}])
@pytest.mark.parametrize("n", [1, 4, 6])
def test_fixed_transport_against_brute_force(sizes: dict[str, int], n: int) -> None:
    p = faces(n, sizes, seed=n)
    shares = {attribute: [1 / size] * size for attribute, size in sizes.items()}
    cells = list(itertools.product(*map(range, sizes.values())))
    cost = sum(
        ((p[a][:, None] - np.eye(k)[[c[i] for c in cells]]) ** 2).sum(2) for i, (a, k) in enumerate(sizes.items())
    )
    counts = [n // len(cells) + (i < n % len(cells)) for i in range(len(cells))]
    labels = [cell for cell, count in enumerate(counts) for _ in range(count)]
    least = min(sum(np.sqrt(cost[i, c]) for i, c in enumerate(order)) for order in set(itertools.permutations(labels)))
    q = fixed_transport(p, shares)
    chosen = [cells.index(tuple(int(q[a][i].argmax()) for a in sizes)) for i in range(n)]
    assert sorted(chosen) == labels
    assert sum(np.sqrt(cost[i, c]) for i, c in enumerate(chosen)) == pytest.approx(least)


def test_a_fixed_split_leaves_no_face_without_a_target() -> None:
    p = {"gender": np.stack([np.linspace(0.9, 0.6, 10), np.linspace(0.1, 0.4, 10)], axis=1)}
    shares, found = {"gender": [0.5, 0.5]}, np.ones(10, bool)
    assert alignment_targets(p, shares, found, 0.8, 0, 0, fixed=True)["gender"].tolist() == [0] * 5 + [1] * 5
    assert -1 in alignment_targets(p, shares, found, 0.8, 0, 0)["gender"]
    uneven = {"gender": [0.25, 0.75]}
    assert alignment_targets(p, uneven, found, 0.8, 0, 0, fixed=True)["gender"].tolist().count(0) in (2, 3)
