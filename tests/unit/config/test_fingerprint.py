"""What changes a fingerprint and what does not."""

import math

import pytest

from distalign.config.fingerprint import canonical_json, fingerprint


def test_order_unset_keys_and_spelling_of_numbers_change_nothing() -> None:
    first = {"a": 1, "b": {"c": 3.0, "d": None, "e": [1, 2]}, "f": None}
    second = {"b": {"e": (1, 2.0), "c": 3}, "a": 1.0}
    assert canonical_json(first) == '{"a":1,"b":{"c":3,"e":[1,2]}}'
    assert fingerprint(first) == fingerprint(second)
    assert len(fingerprint(first)) == 64


def test_execution_keys_change_nothing_at_any_depth() -> None:
    slow = {"rank": 8, "micro_batch": {"sample": 1}, "gradient": {"weights": "exact", "keep_graph": False}}
    assert fingerprint(slow) == fingerprint({"rank": 8, "gradient": {"weights": "exact"}, "checkpoint_every": 3})


@pytest.mark.parametrize("other", [{"a": 2}, {"a": "1"}, {"a": [1]}, {"a": 1, "b": 0}, {"a": True}, {"b": 1}, {}])
def test_meaning_changes_it(other: dict[str, object]) -> None:
    assert fingerprint({"a": 1}) != fingerprint(other)


def test_order_of_lists_is_meaning() -> None:
    assert fingerprint([1, 2]) != fingerprint([2, 1])


def test_not_a_number_has_no_fingerprint() -> None:
    with pytest.raises(ValueError, match="JSON"):
        fingerprint({"a": math.nan})
