import numpy as np
import pytest

from distalign.measure.paired import (
    FAILS,
    HOLDS,
    UNDECIDED,
    combine,
    estimate_known,
    estimate_means,
    interval,
    overall,
    ratio,
    scale,
    verdict,
)


def test_differences_are_paired_by_prompt():
    generator = np.random.default_rng(0)
    level = generator.normal(0, 10, 30)  # what prompts differ by, in both runs alike
    first = {f"p{i}": value for i, value in enumerate(level)}
    second = {f"p{i}": value + 1 for i, value in reversed(list(enumerate(level)))}  # in another order
    a, b = estimate_means([first, second])
    difference = combine(b, a)
    assert difference.value == pytest.approx(1)
    assert interval(difference) == pytest.approx((1, 1))
    assert np.subtract(*interval(a)[::-1]) > 4
    apart = {f"q{i}": value + 1 for i, value in enumerate(level)}  # other prompts: nothing is in common
    low, high = interval(combine(*estimate_means([apart, first])))
    assert high - low > 6


def test_only_common_prompts_count_and_a_few_shared_names_pair_nothing():
    a, b = estimate_means([{"chef": 1.0, "judge": 2.0, "nurse": 9.0}, {"judge": 4.0, "chef": 2.0}])
    assert (a.value, b.value, a.n) == (1.5, 3.0, 2)
    jobs, sports = {f"job{i}": 1.0 for i in range(9)}, {f"sport{i}": 2.0 for i in range(9)}
    a, b = estimate_means([jobs | {"dancer": 11.0}, sports | {"dancer": 12.0}])
    assert (a.value, b.value, a.n, b.n) == (2.0, 3.0, 10, 10)


def test_difference_of_two_prompt_sets_is_paired_within_each():
    generator = np.random.default_rng(1)
    jobs, styles = generator.normal(0, 10, 20), generator.normal(0, 10, 20)
    sets = [
        {f"{name}{i}": value + plus for i, value in enumerate(values)}
        for name, values, plus in (("job", jobs, 0), ("job", jobs, 3), ("style", styles, 0), ("style", styles, 1))
    ]
    a, b, c, d = estimate_means(sets)
    effect = combine(combine(b, a), combine(d, c))
    assert interval(effect) == pytest.approx((2, 2))


@pytest.mark.parametrize("prompts", [8, 24])
def test_intervals_cover_the_truth_as_often_as_they_say(prompts):
    generator = np.random.default_rng(prompts)
    hits, studies = 0, 400
    for _ in range(studies):
        level = generator.beta(2, 2, prompts)  # of a prompt; half of it is left by the run, and both are measured
        original = level + generator.normal(0, 0.05, prompts)
        ours = level / 2 + generator.normal(0, 0.05, prompts)
        samples = [{str(i): value for i, value in enumerate(values)} for values in (ours, original)]
        low, high = interval(combine(*estimate_means(samples)))
        hits += low <= -0.25 <= high  # the mean of level is a half
    assert 0.93 <= hits / studies <= 0.98


def test_ratio_and_scale_by_hand():
    numerator, denominator = estimate_means([{"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 2.0, "b": 4.0, "c": 6.0}])
    half = ratio(numerator, denominator)
    assert half.value == 0.5
    assert interval(half) == pytest.approx((0.5, 0.5))
    moved = scale(half, 4, -1)
    assert moved.value == 1
    assert interval(moved) == pytest.approx((1, 1))


def test_nothing_is_known_of_a_ratio_to_what_may_be_zero():
    generator = np.random.default_rng(2)
    noise = generator.normal(0, 1, 20)
    samples = [{str(i): value for i, value in enumerate(values)} for values in (noise + 5, noise - noise.mean())]
    something, nothing = estimate_means(samples)
    assert ratio(something, nothing) is None
    assert ratio(nothing, something) is not None


def test_known_intervals_come_back_and_add_up_as_squares():
    first, second = estimate_known(2.0, 1.4, 2.6, 3, "runs", "a"), estimate_known(1.0, 0.2, 1.8, 3, "runs", "b")
    assert interval(first) == pytest.approx((1.4, 2.6), abs=0.03)
    assert interval(combine(first, second)) == pytest.approx((0, 2), abs=0.06)  # half widths .6 and .8
    again = estimate_known(2.0, 1.4, 2.6, 3, "runs", "a")
    assert interval(combine(first, again)) == pytest.approx((0, 0))


def test_few_observations_have_an_interval_by_student():
    (few,) = estimate_means([{"a": 1.0, "b": 2.0, "c": 3.0}])
    half = 4.30265 / 3**0.5  # t with 2 degrees of freedom, of a standard deviation of 1
    assert interval(few) == pytest.approx((2 - half, 2 + half), rel=0.03)


def test_one_observation_has_no_interval():
    (one,) = estimate_means([{"a": 1.0}])
    assert (one.value, interval(one)) == (1.0, None)
    (none,) = estimate_means([{}])
    assert interval(none) is None


@pytest.mark.parametrize(
    ("limits", "bound", "expected"),
    [
        ((0.1, 0.3), {"below": 0.4}, HOLDS),
        ((0.1, 0.4), {"below": 0.4}, UNDECIDED),
        ((0.4, 0.5), {"below": 0.4}, FAILS),
        ((0.5, 0.6), {"above": 0.4}, HOLDS),
        ((0.3, 0.6), {"above": 0.4}, UNDECIDED),
        ((0.0, 0.0), {"above": 0}, FAILS),
        ((-0.1, 0.1), {"between": [-0.1, 0.1]}, HOLDS),
        ((-0.2, 0.1), {"between": [-0.1, 0.1]}, UNDECIDED),
        ((-0.5, 0.5), {"between": [-0.1, 0.1]}, UNDECIDED),
        ((0.2, 0.5), {"between": [-0.1, 0.1]}, FAILS),
        ((-0.3, -0.2), {"between": [-0.1, 0.1]}, FAILS),
    ],
)
def test_verdicts(limits, bound, expected):
    assert verdict(limits, **bound) == expected


def test_a_claim_holds_if_all_of_its_checks_do():
    assert overall([HOLDS, HOLDS]) == HOLDS
    assert overall([HOLDS, UNDECIDED]) == UNDECIDED
    assert overall([UNDECIDED, FAILS, HOLDS]) == FAILS
