"""TIME: tokens aligned one by one, destinations by what is missing, one closed form."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from distalign.diffusion.intervention import Intervention
from distalign.methods import time_edit
from distalign.methods.cross_attention import layers, token_states
from distalign.methods.world import Measured, World
from distalign.prompts.phrases import say

from .conftest import UNIFORM, settings_of

GENDER = {"gender": UNIFORM["gender"]}


def measured(world: World, monkeypatch: pytest.MonkeyPatch, counts: Sequence[Sequence[float]]) -> None:
    def measure(intervention: Intervention, prompts: Sequence[Any], target: Any) -> Measured:
        assert type(intervention) is Intervention
        assert len(prompts) == len(counts)
        return Measured(np.array(counts, float), 10, 1.0)

    monkeypatch.setattr(world, "measure", measure)


def test_tokens_are_aligned_in_order() -> None:
    start, a, doctor, comma, end, female = range(6)
    assert time_edit.align([start, a, doctor, comma, a, end], [start, a, female, doctor, comma, a, end]) == [
        0, 1, 3, 4, 5, 6,
    ]  # fmt: skip
    # Cut before the concept: what is left has no counterpart.
    assert time_edit.align([start, a, doctor, end], [start, a, female, end]) == [0, 1, -1, 3]


def test_articles_are_one_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"a": [1], "an": [2], "an engineer": [2, 7], "a female engineer": [1, 8, 7]}
    monkeypatch.setattr(time_edit, "token_ids", lambda pipeline, text: [0, *known[text], 9])
    source, destination = (time_edit._comparable(world.pipeline, f"{a} engineer") for a in ("an", "a female"))
    assert time_edit.align(source, destination) == [0, 1, 3, 4]


def test_the_edit_minimises_its_objective(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(world, monkeypatch, [[8, 2], [5, 5], [1, 9]])  # the second is as it should be
    world.pipeline.unet.double()
    strength = 0.3
    fitted = time_edit.fit(world, settings_of("time_edit", strength=strength), GENDER)
    for name, weight in layers(world.pipeline).items():
        own, new = weight.detach(), fitted[name].clone().requires_grad_()
        objective = strength * ((new - own) ** 2).sum()
        for one, rare in ((world.train[0], "male"), (world.train[2], "female")):
            source, there = token_states(world.pipeline, [one.text, say(one, {"gender": rare}).text])
            words = len(there) - len(source)
            before = len(source) - len(one.concept.replace(" ", "")) - 1  # tokens up to the concept, one a character
            there = torch.cat([there[:before], there[before + words :]])
            objective = objective + ((source @ new.T - there @ own.T) ** 2).sum()
        (gradient,) = torch.autograd.grad(objective, new)
        assert gradient.abs().max() < 1e-8
        assert (new - own).abs().max() > 1e-3


def test_with_several_classes_the_mean_of_what_is_missing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.train = world.train[:1]
    measured(world, monkeypatch, [[7, 2, 1, 0]])  # missing of wmelh, asian, black, indian: 0, .05, .15, .25
    fitted = time_edit.fit(world, settings_of("time_edit", strength=1e-9), {"race": UNIFORM["race"]})
    one = world.train[0]
    kinds = ("asian", "black", "indian")
    own, *others = token_states(world.pipeline, [one.text, *(say(one, {"race": kind}).text for kind in kinds)])
    for name, weight in layers(world.pipeline).items():
        w = weight.double()
        for place in (-2, -1):
            asian, black, indian = (w @ states[place] for states in others)
            wanted = (0.05 * asian + 0.15 * black + 0.25 * indian) / 0.45
            torch.testing.assert_close(fitted[name].double() @ own[place], wanted, atol=1e-4, rtol=1e-4)


def test_a_larger_strength_changes_less(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(world, monkeypatch, [[8, 2], [1, 9]])
    own = layers(world.pipeline)

    def size(strength: float) -> float:
        fitted = time_edit.fit(world, settings_of("time_edit", strength=strength, concepts=2), GENDER)
        return sum(float((fitted[name] - weight).norm()) for name, weight in own.items())

    sizes = [size(strength) for strength in (0.1, 10, 1000)]
    assert sizes[0] > 1.2 * sizes[1] > 1.2 * 1.2 * sizes[2] > 0


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_right_or_faceless_concepts_leave_the_model_as_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    measured(world, monkeypatch, [[10 * share, 10 - 10 * share], [0, 0], [70 * share, 70 - 70 * share]])
    fitted = time_edit.fit(world, settings_of("time_edit"), {"gender": {"female": share, "male": 1 - share}})
    for name, weight in layers(world.pipeline).items():
        assert torch.equal(weight, fitted[name])
        assert weight.data_ptr() != fitted[name].data_ptr()
