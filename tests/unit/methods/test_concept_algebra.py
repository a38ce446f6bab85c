"""Concept Algebra: a projection for each image by itself, its target, its cost."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from distalign.diffusion.intervention import Batch, Intervention
from distalign.errors import UserError
from distalign.methods.assignment import Target, assign
from distalign.methods.concept_algebra import ConceptAlgebra, project
from distalign.methods.fitting import apply, fit
from distalign.methods.world import World

from .conftest import UNIFORM, Images, settings_of
from .scores import calls, changes_each_image_by_itself, cost, known_step, sampling

GENDER = {"gender": UNIFORM["gender"]}
RACE = {"race": UNIFORM["race"]}
BOTH = {**GENDER, **RACE}
SIZES = 10.0 ** torch.arange(8).view(-1, 1, 1, 1)


def make(target: Target = GENDER, /, **changed: Any) -> ConceptAlgebra:
    return ConceptAlgebra(target, settings_of("concept_algebra", **changed))


def random(*shape: int) -> Tensor:
    """Scores of images, each of another size: norms over the whole batch would be another image's."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) * SIZES[: shape[1]]


def basis(named: Tensor, threshold: float) -> Tensor:
    """Q (d, K) of one image's scores (n, C, h, w) by the definition."""
    a = named.double().flatten(1).T
    q, s, _ = torch.linalg.svd(a - a.mean(dim=1, keepdim=True), full_matrices=False)
    held = (s**2).cumsum(0) / (s**2).sum()
    return q[:, : int((held > threshold).nonzero()[0]) + 1]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_two_cells_are_the_projection_of_the_authors(batch: Batch, guidance: float) -> None:
    scores = random(5, 8, 4, 3, 3)
    own, plus, minus, wanted, empty = scores
    u = minus - plus
    u = u / u.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    expected = own - ((own - wanted) * u).sum((1, 2, 3), keepdim=True) * u
    step = known_step(sampling(batch, 3, steps=3, guidance=guidance), 0, scores)
    found = make().score(step)
    whole = expected if guidance == 1 else empty + guidance * (expected - empty)
    torch.testing.assert_close(found / SIZES, whole / SIZES, rtol=1e-5, atol=1e-5)
    if guidance == 1:
        along = [(it * u).sum((1, 2, 3)) / SIZES.flatten() for it in (found, wanted)]
        torch.testing.assert_close(*along, rtol=1e-5, atol=1e-5)
        aside = [(it - (it * u).sum((1, 2, 3), keepdim=True) * u) / SIZES for it in (found, own)]
        torch.testing.assert_close(*aside, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threshold", [0.3, 0.9])
def test_more_cells_give_their_subspace_the_targets_part(batch: Batch, threshold: float) -> None:
    scores = random(11, 8, 4, 3, 3)
    scores[1] *= 3  # so that some directions hold more than others
    step = known_step(sampling(batch, 9, steps=3, guidance=1), 0, scores)
    found = make(BOTH, threshold=threshold).score(step)
    dimensions = []
    for i in range(8):
        q = basis(scores[1:9, i], threshold)
        before, after, wanted = (it[i].double().flatten() for it in (scores[0], found, scores[9]))
        torch.testing.assert_close(q.T @ after, q.T @ wanted, rtol=1e-4, atol=1e-4 * 10**i)
        torch.testing.assert_close(after - q @ (q.T @ after), before - q @ (q.T @ before), rtol=1e-4, atol=1e-4 * 10**i)
        dimensions.append(q.shape[1])
    assert max(dimensions) < 7 if threshold == 0.9 else max(dimensions) < 3


def test_the_threshold_from_one_direction_to_all() -> None:
    named, vectors = random(4, 2, 4, 3, 3), random(1, 2, 4, 3, 3)[0]
    for threshold, dimensions in [(0.0, 1), (1.0, 3)]:
        projected = project(vectors, named, threshold)
        for i in range(2):
            a = named[:, i].double().flatten(1).T
            q = torch.linalg.svd(a - a.mean(1, keepdim=True), full_matrices=False)[0][:, :dimensions]
            expected = q @ (q.T @ vectors[i].double().flatten())
            torch.testing.assert_close(projected[i].double().flatten(), expected, rtol=1e-4, atol=1e-4 * 10**i)


def test_equal_texts_change_nothing() -> None:
    vectors = random(1, 2, 4, 3, 3)[0]
    assert torch.equal(project(vectors, vectors.expand(4, -1, -1, -1, -1), 0.9), torch.zeros_like(vectors))


def test_a_projection_does_not_depend_on_the_batch() -> None:
    named, vectors = random(4, 8, 4, 3, 3), random(1, 8, 4, 3, 3)[0]
    together = project(vectors, named, 0.9)
    for i in range(8):
        alone = project(vectors[i : i + 1], named[:, i : i + 1], 0.9)
        torch.testing.assert_close(together[i], alone[0], rtol=1e-5, atol=1e-5 * 10**i)


@pytest.mark.parametrize(("target", "count"), [(GENDER, 2), (BOTH, 8)])
def test_a_sampled_target_is_that_of_the_drawn_cell(batch: Batch, target: Target, count: int) -> None:
    scores = random(count + 2, 8, 4, 3, 3)
    found = make(target, target="sampled").score(known_step(sampling(batch, count, 3, 1.0), 0, scores))
    for i, cell in enumerate(assign(target, batch, "quota")):
        q = basis(scores[1 : count + 1, i], 0.9)
        wanted = q.T @ scores[1 + cell, i].double().flatten()
        torch.testing.assert_close(q.T @ found[i].double().flatten(), wanted, rtol=1e-4, atol=1e-4 * 10**i)


def test_scale_is_how_much_of_the_way(batch: Batch) -> None:
    step = known_step(sampling(batch, 3, 3, 1.0), 0, random(5, 8, 4, 3, 3))
    whole, half, none = (make(scale=scale).score(step) for scale in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half, (whole + none) / 2)
    assert torch.equal(none, step.scores[0])


def test_early_steps_can_be_left(batch: Batch) -> None:
    scores = random(5, 8, 4, 3, 3)
    own = sampling(batch, 3, steps=3, guidance=3.0, training_steps=200)
    early, late = (make(until=0.6).score(known_step(own, 0, scores, t)) for t in (121, 120))
    torch.testing.assert_close(early, scores[-1] + 3 * (scores[0] - scores[-1]))
    torch.testing.assert_close(late, make().score(known_step(own, 0, scores, 121)))
    assert not torch.allclose(early, late)


def test_what_the_branches_say() -> None:
    assert make().branches == ("a female person", "a male person", "a person")
    assert make(RACE, target="sampled").branches[1] == "an asian person"
    said = make(concept_prompt="a photo of the face of {a} {concept}, a person").branches
    assert said[-1] == "a photo of the face of a person, a person"
    for wrong in ("{a} person", "{concept} {noun}", "{"):
        with pytest.raises(ValidationError):
            make(concept_prompt=wrong)


@pytest.mark.parametrize(
    ("target", "changed", "expected"),
    [(GENDER, {}, 2.5), (GENDER, {"target": "sampled"}, 2), (BOTH, {}, 5.5), (BOTH, {"target": "sampled"}, 5)],
)
def test_cost(world: World, batch: Batch, target: Target, changed: dict[str, Any], expected: float) -> None:
    assert cost(world, make(target, **changed), batch) == expected


def test_no_call_is_larger_than_one_of_plain_sampling(world: World, batch: Batch) -> None:
    assert calls(world, make(GENDER), batch, guidance=3.0) == [16, 16, 8] * world.steps
    assert calls(world, make(GENDER), batch, guidance=1.0) == [16, 16] * world.steps


@pytest.mark.parametrize(
    ("padding", "target", "changed"),
    [("max_length", GENDER, {}), ("longest", BOTH, {"target": "sampled", "assignment": "iid"})],
)
def test_images_do_not_depend_on_the_batch(
    world: World,
    both_ways: Callable[[World, Intervention], Images],
    padding: Any,
    target: Target,
    changed: dict[str, Any],
) -> None:
    changes_each_image_by_itself(replace(world, padding=padding), both_ways, make(target, **changed))


def test_only_a_sampled_target_takes_shares(world: World) -> None:
    uneven = {"gender": {"female": 0.75, "male": 0.25}}
    settings = settings_of("concept_algebra")
    assert fit("concept_algebra", world, settings, uneven) == {}
    with pytest.raises(UserError, match="sampled"):
        apply("concept_algebra", world, settings, uneven, {})
    apply("concept_algebra", world, {**settings, "target": "sampled"}, uneven, {})
