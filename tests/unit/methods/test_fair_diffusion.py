"""Fair Diffusion: semantic guidance against a slow loop, the drawn class, the look-up."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distalign.config.attributes import PAPER_ATTRIBUTES
from distalign.diffusion.intervention import Batch, Intervention, render
from distalign.methods.assignment import Target, assign, cells
from distalign.methods.fair_diffusion import FairDiffusion, edits, keep_largest
from distalign.methods.fitting import apply, fit, load_method, save_method
from distalign.methods.world import World
from distalign.prompts.phrases import phrase

from .conftest import UNIFORM, Images, prompt, settings_of
from .scores import changes_each_image_by_itself, cost, known_step, sampling

GENDER = {"gender": UNIFORM["gender"]}
RACE = {"race": UNIFORM["race"]}
BOTH = {**GENDER, **RACE}
STEPS = 10


def make(target: Target = GENDER, /, known: set[int] | None = None, **changed: Any) -> FairDiffusion:
    return FairDiffusion(target, settings_of("fair_diffusion", **changed), known)


def random(number: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(number))


def slow(scores: list[np.ndarray], signed: list[tuple[float, int]], settings: dict[str, Any], w: float) -> np.ndarray:
    """Semantic guidance of one image after its last step; scores (n, C, h, w) of each step, rows with their signs."""
    momentum = np.zeros_like(scores[0][0])
    for number, step in enumerate(scores):
        own, empty = step[0], step[-1]
        total = np.zeros_like(own)
        for sign, row in signed:
            delta = sign * settings["scale"] * (step[row] - empty)
            for channel in range(len(delta)):
                limit = np.quantile(np.abs(delta[channel]), settings["threshold"])
                for place, value in np.ndenumerate(delta[channel]):
                    if abs(value) >= limit:
                        total[(channel, *place)] += value
        total += settings["momentum"] * momentum
        momentum = settings["beta"] * momentum + (1 - settings["beta"]) * total
        result: np.ndarray = empty + w * (own - empty)
        if number >= settings["warmup"] * len(scores):
            result = result + total
    return result


@pytest.mark.parametrize("steps", [1, 2, 3, STEPS])
@pytest.mark.parametrize(
    ("target", "changed"),
    [
        (GENDER, {}),
        (GENDER, {"momentum": 0.3, "beta": 0.2, "scale": 2.0, "threshold": 0.5}),
        (BOTH, {"remove": "each"}),
    ],
)
def test_against_a_slow_loop(batch: Batch, target: Target, changed: dict[str, Any], steps: int) -> None:
    method = make(target, warmup=0.2, **changed)
    own = sampling(batch, len(method.branches), STEPS, guidance=3.0)
    scores = [random(i, len(method.branches) + 2, 8, 4, 5, 5) for i in range(steps)]
    for number, it in enumerate(scores):
        found = method.score(known_step(own, number, it))
    for i, cell in enumerate(assign(target, batch, "quota")):
        signed = [
            (sign, 1 + method.branches.index(text))
            for sign, text in edits(cells(target)[cell], method.settings["remove"])
        ]
        padded = {**method.settings, "warmup": 2 / steps}  # of ten steps, in a loop that ends early
        expected = slow([it[:, i].double().numpy() for it in scores], signed, padded, 3.0)
        torch.testing.assert_close(found[i].double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("steps", "first"), [(50, 5), (20, 2), (25, 2), (3, 0)])
def test_warm_up_is_a_share_of_the_steps(batch: Batch, steps: int, first: int) -> None:
    method = make()
    own = sampling(batch, 2, steps, guidance=3.0)
    scores = random(0, 4, 8, 4, 5, 5)
    plain = scores[-1] + 3 * (scores[0] - scores[-1])
    changed = [not torch.equal(method.score(known_step(own, number, scores)), plain) for number in range(steps)]
    assert changed == [number >= first for number in range(steps)]


def test_each_channel_of_each_image_has_a_quantile_of_its_own() -> None:
    delta = random(0, 3, 4, 10, 10) * 10.0 ** torch.arange(12).view(3, 4, 1, 1)
    kept = keep_largest(delta, 0.95)
    assert ((kept != 0).sum((2, 3)) == 5).all()
    assert torch.equal(kept[kept != 0], delta[kept != 0])
    smallest = torch.where(kept != 0, kept.abs(), torch.inf).amin((2, 3))
    assert (torch.where(kept == 0, delta.abs(), 0).amax((2, 3)) < smallest).all()


def test_what_the_edits_say() -> None:
    assert edits({"gender": "female"}, "together") == [(1, "female person"), (-1, "male person")]
    assert edits({"gender": "male"}, "each") == [(1, "male person"), (-1, "female person")]
    asian = {"gender": "female", "race": "asian"}
    assert edits(asian, "together") == [
        (1, "asian female person"),
        (-1, "white male person, black male person, indian male person"),
    ]
    assert edits(asian, "each") == [
        (1, "female person"),
        (-1, "male person"),
        (1, "asian person"),
        (-1, "white person"),
        (-1, "black person"),
        (-1, "indian person"),
    ]


@pytest.mark.parametrize("remove", ["together", "each"])
def test_signs_are_those_of_the_first_cell_for_all(remove: str) -> None:
    for target in (GENDER, RACE, BOTH):
        signs = {tuple(sign for sign, _ in edits(cell, remove)) for cell in cells(target)}
        assert len(signs) == 1


def test_the_added_text_is_that_of_the_drawn_cell(batch: Batch) -> None:
    method = make(RACE, scale=1.0, threshold=0.0, momentum=0.0, warmup=0.0)
    own = sampling(batch, len(method.branches), STEPS, guidance=3.0)
    scores = torch.zeros(len(method.branches) + 2, 8, 4, 5, 5)
    for number, name in enumerate(PAPER_ATTRIBUTES["race"]):
        scores[1 + method.branches.index(phrase({"race": name}))] = number + 1
    found = method.score(known_step(own, 0, scores))[:, 0, 0, 0]
    assert found.tolist() == [cell + 1 for cell in assign(RACE, batch, "quota")]


def test_images_of_unknown_concepts_are_the_original_bit_for_bit(
    world: World, both_ways: Callable[[World, Intervention], Images]
) -> None:
    settings = settings_of("fair_diffusion")
    method = apply("fair_diffusion", world, settings, BOTH, fit("fair_diffusion", world, settings, BOTH))
    assert max(map(len, method.branches)) > len("a photo of a doctor"), "else the texts' lengths could not show"
    images, original = both_ways(world, method), both_ways(world, Intervention())
    assert torch.equal(images.together, original.together)
    assert torch.equal(images.alone, original.alone)


def test_known_and_unknown_concepts_together(world: World, tmp_path: Path) -> None:
    settings = settings_of("fair_diffusion")
    fitted = fit("fair_diffusion", world, settings, GENDER)
    save_method(tmp_path / "adapter", {"method": "fair_diffusion", "align": GENDER}, settings, fitted)
    method = load_method(tmp_path / "adapter", replace(world, train=()))
    concepts = ["cook", "doctor", "bus driver", "pilot"]
    mixed = Batch([prompt(concept, "test") for concept in concepts], [0] * 4, 4, 5)
    assert method.acts(mixed)

    def shown(intervention: Intervention) -> Tensor:
        return render(world.pipeline, intervention, mixed, range(4), world.steps, world.guidance, "longest")

    original, edited, found = shown(Intervention()), shown(make()), shown(method)
    for i, concept in enumerate(concepts):
        near, far = (edited, original) if concept in ("cook", "bus driver") else (original, edited)
        torch.testing.assert_close(found[i], near[i], atol=2e-5, rtol=0)
        assert (found[i] - far[i]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("target", "changed", "expected"),
    [
        (GENDER, {}, 2),
        (BOTH, {}, 2),
        (GENDER, {"remove": "each"}, 2),
        (RACE, {"remove": "each"}, 3),
        (BOTH, {"remove": "each"}, 4),
    ],
)
def test_cost(world: World, batch: Batch, target: Target, changed: dict[str, Any], expected: float) -> None:
    assert cost(world, make(target, **changed), batch) == expected
    assert cost(world, make(target, known=set(), **changed), batch) == 1


@pytest.mark.parametrize(
    ("padding", "target", "changed"),
    [("max_length", GENDER, {}), ("longest", BOTH, {"remove": "each", "assignment": "iid"})],
)
def test_images_do_not_depend_on_the_batch(
    world: World,
    both_ways: Callable[[World, Intervention], Images],
    padding: Any,
    target: Target,
    changed: dict[str, Any],
) -> None:
    changes_each_image_by_itself(replace(world, padding=padding), both_ways, make(target, **changed))
