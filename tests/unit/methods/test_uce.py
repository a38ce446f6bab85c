"""UCE: the values it asks for, and the rounds of images that say how much."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distalign.diffusion.intervention import Intervention
from distalign.methods import uce
from distalign.methods.assignment import Target, cells
from distalign.methods.cross_attention import EditedWeights, layers, token_ids, token_states
from distalign.methods.world import Measured, World
from distalign.prompts import Prompt
from distalign.prompts.phrases import say

from .conftest import UNIFORM, prompt, settings_of

GENDER = {"gender": UNIFORM["gender"]}
BOTH = {"gender": UNIFORM["gender"], "race": UNIFORM["race"]}


class Reading:
    """In the place of `World.measure`: shares follow from one layer's values of the concept's token.

    score_k = b_k + 30 <(W' c - W c) / |W c|, direction of cell k>, shares = softmax(score). A direction is the unit
    vector from the mean of all cells' values to that of one.
    """

    def __init__(self, world: World, target: Target, biases: dict[str, list[float]]) -> None:
        self.world, self.kinds, self.biases = world, cells(target), biases
        self.name = next(name for name in layers(world.pipeline) if "to_v" in name)
        self.own = layers(world.pipeline)[self.name].detach().double().clone()
        self.shares: list[np.ndarray] = []

    def state(self, one: Prompt, text: str) -> Tensor:
        place = uce.last_token(self.world.pipeline, one) - len(token_ids(self.world.pipeline, one.text))
        (states,) = token_states(self.world.pipeline, [text])
        return states[place]

    def __call__(self, intervention: Intervention, prompts: Sequence[Prompt], target: Target) -> Measured:
        assert isinstance(intervention, EditedWeights)
        counts = []
        for one in prompts:
            state = self.state(one, one.text)
            moved = (intervention.weights[self.name].double() - self.own) @ state
            guides = torch.stack([self.own @ self.state(one, say(one, cell).text) for cell in self.kinds])
            guides = torch.nn.functional.normalize(guides, dim=1)
            directions = torch.nn.functional.normalize(guides - guides.mean(0), dim=1)
            score = torch.tensor(self.biases[one.concept], dtype=torch.float64)
            score = score + 30 * directions @ moved / (self.own @ state).norm()
            counts.append(1000 * torch.softmax(score, 0).numpy())
        self.shares.append(np.array(counts) / 1000)
        return Measured(np.array(counts), 1000, 1.0)


@pytest.fixture
def weights_of(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The w of every edit."""
    seen: list[np.ndarray] = []
    edit = uce.Edits.weighted

    def weighted(self: uce.Edits, weights: np.ndarray) -> dict[str, Tensor]:
        seen.append(weights.copy())
        return edit(self, weights)

    monkeypatch.setattr(uce.Edits, "weighted", weighted)
    return seen


def fit(world: World, target: Target, reading: Reading, monkeypatch: pytest.MonkeyPatch, **changed: Any) -> Any:
    monkeypatch.setattr(world, "measure", reading)
    before = {name: weight.detach().clone() for name, weight in layers(world.pipeline).items()}
    fitted = uce.fit(world, settings_of("uce", **changed), target)
    assert all(torch.equal(weight, before[name]) for name, weight in layers(world.pipeline).items())
    return fitted


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_rounds_move_every_concept_to_the_target(
    world: World, weights_of: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    target = {"gender": {"female": share, "male": 1 - share}}
    reading = Reading(world, target, {"cook": [1, -1], "judge": [-1, 1], "bus driver": [-2, 1]})
    fitted = fit(world, target, reading, monkeypatch, step=1, rounds=60)
    first, last = reading.shares[0], reading.shares[-1]
    assert np.abs(first[:, 0] - share).max() > 0.25
    assert np.abs(last[:, 0] - share).max() < 0.05
    assert len(reading.shares) < 60
    # What is returned is what was looked at last.
    world.measure(EditedWeights(fitted), world.train, target)
    np.testing.assert_allclose(reading.shares[-1], last)
    assert np.abs(weights_of[-1]).max() > 0.1


def test_a_concept_within_the_tolerance_or_without_faces_is_not_pushed(
    world: World, weights_of: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = np.array([[80.0, 20.0], [54.0, 46.0], [0.0, 0.0]])
    monkeypatch.setattr(world, "measure", lambda *_: Measured(counts, 100, 1.0))
    uce.fit(world, settings_of("uce", rounds=3), GENDER)
    np.testing.assert_allclose(weights_of[-1], [[-0.09, 0.09], [0, 0], [0, 0]])


def test_a_fair_model_is_not_changed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "measure", lambda *_: Measured(np.full((3, 2), 5.0), 10, 1.0))
    fitted = uce.fit(world, settings_of("uce"), GENDER)
    assert all(torch.equal(weight, fitted[name]) for name, weight in layers(world.pipeline).items())


def test_several_attributes_are_moved_together(
    world: World, weights_of: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.train = world.train[:1]
    reading = Reading(world, BOTH, {"cook": [2, 1, 0, 0, 0, 0, 0, 0.5]})
    fit(world, BOTH, reading, monkeypatch, step=0.2, rounds=30)
    deviation = [np.abs(shares - 1 / 8).sum() for shares in reading.shares]
    assert deviation[-1] < 0.85 * deviation[0]
    assert deviation == sorted(deviation, reverse=True)
    assert weights_of[-1].shape == (1, 8)
    assert abs(weights_of[-1].sum()) < 1e-9


@pytest.mark.parametrize("tokens", ["last", "rest"])
def test_values_are_those_of_the_equation(world: World, tokens: str) -> None:
    one = prompt("judge")
    settings = settings_of("uce", tokens=tokens, strength=1e-9, preserve_scale=0)
    weights = np.array([[0.3, -0.2]])
    edited = uce.Edits(world.pipeline, [one], GENDER, settings).weighted(weights)
    texts = [one.text, *(say(one, cell).text for cell in cells(GENDER))]
    own, female, male = token_states(world.pipeline, texts)
    for name, weight in layers(world.pipeline).items():
        w = weight.double()
        for place in (-2,) if tokens == "last" else (-2, -1):  # the concept ends the text; then there is the end
            c, *guides = (w @ states[place] for states in (own, female, male))
            wanted = c + c.norm() * (0.3 * guides[0] / guides[0].norm() - 0.2 * guides[1] / guides[1].norm())
            torch.testing.assert_close(edited[name].double() @ own[place], wanted, atol=1e-4, rtol=1e-4)


def test_the_order_of_edits_leaves_nothing_behind(world: World) -> None:
    edits = uce.Edits(world.pipeline, world.train, GENDER, settings_of("uce"))
    once = edits.weighted(np.full((3, 2), 0.2))
    edits.weighted(np.full((3, 2), -0.7))
    again = edits.weighted(np.full((3, 2), 0.2))
    assert all(torch.equal(weight, again[name]) for name, weight in once.items())


@pytest.mark.parametrize(
    ("text", "concept", "upto"),
    [
        ("a photo of a bus driver", "bus driver", "a photo of a bus driver"),
        ("A Judge, at work", "judge", "a judge"),
        ("someone cooks", "cook", "someone cooks"),
        ("a photo of the face of some farm worker, a person", "farm worker", "a photo of the face of some farm worke"),
    ],
)
def test_the_last_token_of_a_concept(world: World, text: str, concept: str, upto: str) -> None:
    place = uce.last_token(world.pipeline, Prompt("x", text, concept, "train"))
    ids = token_ids(world.pipeline, text)
    characters = "".join(world.pipeline.tokenizer.convert_ids_to_tokens(ids[1 : place + 1])).replace("</w>", "")
    assert 0 < place < len(ids) - 1
    assert characters == upto.replace(" ", "")[: len(ids) - 2]
