"""Settings that differ are named by the deepest place, and only where they mean something else."""

from typing import Any

import pytest

from distalign.config.differences import differences
from distalign.config.fingerprint import fingerprint


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"a": 1}, {"a": 2}, ["a: 1 → 2"]),
        ({"loss": {"image": 2.0, "face": 1}}, {"loss": {"face": 1, "image": 3}}, ["loss.image: 2 → 3"]),
        ({"rows": [{"run": "x"}, {"run": "y"}]}, {"rows": [{"run": "x"}, {"run": "z"}]}, ["rows[1].run: y → z"]),
        ({"train": ["unet"]}, {"train": ["unet", "text_encoder"]}, ['train: ["unet"] → ["unet","text_encoder"]']),
        ({"a": {}}, {"a": {"b": True}}, ["a.b: unset → true"]),
        ({"a": "x" * 100}, {"a": None}, [f"a: {'x' * 57}... → unset"]),
    ],
)
def test_they_are_said(before: dict[str, Any], after: dict[str, Any], said: list[str]) -> None:
    assert list(map(str, differences(before, after))) == said


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}),
        ({"a": 1}, {"a": 1, "b": None}),
        ({"a": {"micro_batch": 1}}, {"a": {"micro_batch": 2, "keep_graph": True}}),
    ],
)
def test_the_same_meaning_is_no_difference(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert fingerprint(before) == fingerprint(after)
    assert differences(before, after) == []
