from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from distalign.diffusion.intervention import Intervention
from distalign.methods.concept_algebra import ConceptAlgebra, apply, project
from distalign.methods.world import World

from .conftest import UNIFORM, Images, settings_of

GENDER, BOTH = {"gender": UNIFORM["gender"]}, {"gender": UNIFORM["gender"], "race": UNIFORM["race"]}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_two_cells_are_the_authors_binary_form_per_image() -> None:
    spanning, own, goal = random(2, 3, 4, 2, 2), random(3, 4, 2, 2, seed=1), random(3, 4, 2, 2, seed=2)
    moved = own + project(spanning, goal - own, 0.9)
    for b in range(3):
        u = (spanning[1, b] - spanning[0, b]).flatten()
        u = u / u.norm()
        expected = own[b].flatten() - ((own[b] - goal[b]).flatten() @ u) * u
        torch.testing.assert_close(moved[b].flatten(), expected)


def test_several_cells_span_a_subspace() -> None:
    spanning, own, goal = random(4, 2, 30), random(2, 30, seed=1), random(2, 30, seed=2)
    moved = own + project(spanning, goal - own, 1.0)
    for b in range(2):
        left, *_ = torch.linalg.svd((spanning[:, b] - spanning[:, b].mean(0)).T, full_matrices=False)
        basis = left[:, :3]  # four points around their mean
        torch.testing.assert_close(basis.T @ moved[b], basis.T @ goal[b], atol=1e-5, rtol=0)
        across = own[b] - basis @ (basis.T @ own[b])
        torch.testing.assert_close(moved[b] - basis @ (basis.T @ moved[b]), across, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("threshold", "kept"), [(0.5, 1), (0.95, 2), (1.0, 2)])
def test_the_leading_directions_are_taken(threshold: float, kept: int) -> None:
    spanning = torch.tensor([[3.0, 0, 0], [-3, 0, 0], [0, 1, 0], [0, -1, 0]]).unsqueeze(1)
    result = project(spanning, torch.ones(1, 3), threshold)
    assert result.round(decimals=5).tolist() == [[1.0, float(kept == 2), 0.0]]


def test_equal_scores_have_no_direction() -> None:
    assert project(torch.ones(2, 1, 5), random(1, 5), 0.9).abs().max() == 0


@pytest.mark.parametrize(
    ("align", "changes", "calls"),
    [(GENDER, {}, 5), (GENDER, {"target": "sampled"}, 4), (BOTH, {}, 11), (GENDER, {"until": 0.0}, 2)],
)
def test_evaluations_per_step(
    world: World,
    both_ways: Callable[[World, Intervention], Images],
    align: Any,
    changes: dict[str, Any],
    calls: int,
) -> None:
    sizes: list[int] = []
    hook = world.pipeline.unet.register_forward_pre_hook(lambda module, arguments: sizes.append(len(arguments[0])))
    both_ways(world, apply(world, settings_of("concept_algebra", **changes), align, {}))
    hook.remove()
    assert sizes[0] == 8 * calls


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_sampled_target_differs_from_image_to_image(
    world: World, both_ways: Callable[[World, Intervention], Images], guidance: float
) -> None:
    world.guidance = guidance
    images = both_ways(world, ConceptAlgebra(BOTH, settings_of("concept_algebra", target="sampled")))
    torch.testing.assert_close(images.together, images.alone, atol=1e-4, rtol=0)
