"""Starting latents that are optimised to show the class drawn for each image."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distalign.alignment.reading import FaceReader
from distalign.config.attributes import PAPER_ATTRIBUTES
from distalign.diffusion.intervention import Batch, Intervention, render
from distalign.diffusion.noise import initial_noise
from distalign.faces.detector import FaceBatch
from distalign.methods.assignment import assign, cells
from distalign.methods.doodl import Doodl, apply
from distalign.methods.world import World

from .conftest import UNIFORM, Images, settings_of

BOTH = {"gender": {"female": 0.5, "male": 0.5}, "race": UNIFORM["race"]}


class Rule:
    """Gender by the brightness of a chip, race by its colours and its contrast from left to right."""

    def chips(self, images: Tensor, boxes: Tensor) -> Tensor:
        return images[..., 2:-2, 2:-2]

    def __call__(self, chips: Tensor) -> dict[str, Tensor]:
        red, green, blue = (10 * chips).mean((2, 3)).unbind(1)
        left = (10 * chips[..., : chips.shape[-1] // 2]).mean((1, 2, 3))
        bright = red + green + blue
        return {"gender": torch.stack([bright, -bright], 1), "race": torch.stack([red, green, blue, left], 1)}


def detect(images: Tensor) -> FaceBatch:
    """A face in every image that is not brighter at the top than at the bottom by some margin."""
    half = images.shape[-2] // 2
    found = images[..., :half, :].mean((1, 2, 3)) < images[..., half:, :].mean((1, 2, 3)) + 0.05
    box = torch.tensor([2.0, 2.0, 14.0, 14.0])
    return FaceBatch(found, box * found[:, None], torch.zeros(len(images), 5, 2), found.float())


def everywhere(images: Tensor) -> FaceBatch:
    """A face in every image."""
    return replace(detect(images), found=torch.ones(len(images), dtype=torch.bool), boxes=torch.ones(len(images), 4))


def looking(world: World, find: Callable[[Tensor], FaceBatch] = everywhere) -> World:
    rule: Any = Rule()
    world.load_reader = lambda: FaceReader(find, rule, lambda images, points: images, {})
    return world


def rendered(world: World, intervention: Intervention, batch: Batch) -> Tensor:
    seeds = list(range(len(batch.index)))
    return render(world.pipeline, intervention, batch, seeds, world.steps, world.guidance, world.padding)


def losses(images: Tensor, batch: Batch, how: str) -> Tensor:
    chosen = [cells(BOTH)[cell] for cell in assign(BOTH, batch, how)]
    logits = Rule()(Rule().chips(images, images))
    parts = [
        F.cross_entropy(logits[a], torch.tensor([PAPER_ATTRIBUTES[a].index(c[a]) for c in chosen]), reduction="none")
        for a in BOTH
    ]
    return torch.stack(parts).sum(0)


def test_the_loss_falls_with_every_image_s_own_class(world: World, batch: Batch) -> None:
    before = losses(rendered(looking(world), Intervention(), batch), batch, "iid")
    after = before
    for steps in (2, 6):
        settings = settings_of("doodl", steps=steps, learning_rate=0.01, assignment="iid")
        last, after = after, losses(rendered(world, apply(world, settings, BOTH, {}), batch), batch, "iid")
        assert (after < last).all()
    assert after.mean() < 0.9 * before.mean()


@pytest.mark.parametrize("padding", ["longest", "max_length"])
@pytest.mark.parametrize("size", [1, 3])
def test_images_do_not_depend_on_the_batch(
    world: World, both_ways: Callable[[World, Intervention], Images], padding: Any, size: int
) -> None:
    world.padding, world.gradient_batch = padding, size
    settings = settings_of("doodl", steps=2, learning_rate=0.05)
    images = both_ways(looking(world, detect), Doodl(world, BOTH, settings))
    torch.testing.assert_close(images.together, images.alone, atol=1e-4, rtol=0)


def test_images_without_a_face_stay_as_they_are(world: World, batch: Batch) -> None:
    original = rendered(world, Intervention(), batch)
    found = detect(original).found
    assert found.any() and not found.all()
    settings = settings_of("doodl", steps=2, learning_rate=0.05)
    images = rendered(world, Doodl(looking(world, detect), BOTH, settings), batch)
    changed = (images - original).abs().amax((1, 2, 3))
    assert (changed[~found] == 0).all()
    assert (changed[found] > 1e-3).all()


def latents(world: World, batch: Batch, **changed: Any) -> tuple[Tensor, Tensor]:
    """Before and after."""
    kept: list[Tensor] = []

    class Watched(Doodl):
        def latents(self, sampling: Any, noise: Tensor) -> Tensor:
            kept.extend((noise.clone(), super().latents(sampling, noise)))
            assert torch.equal(noise, kept[0])  # not changed in place
            return kept[1]

    rendered(world, Watched(looking(world), BOTH, settings_of("doodl", **changed)), batch)
    return kept[0], kept[1]


def test_norms_are_kept_and_steps_have_the_length_asked_for(world: World, batch: Batch) -> None:
    before, after = latents(world, batch, steps=3, learning_rate=0.1)
    torch.testing.assert_close(after.flatten(1).norm(dim=1), before.flatten(1).norm(dim=1))
    before, after = latents(world, batch, steps=1, learning_rate=0.1, renormalise=False)
    torch.testing.assert_close((after - before).square().mean((1, 2, 3)).sqrt(), torch.full((8,), 0.1))
    assert (after.flatten(1).norm(dim=1) - before.flatten(1).norm(dim=1)).abs().max() > 1e-3


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_cost_is_what_is_said(world: World, batch: Batch, guidance: float) -> None:
    calls: list[int] = []
    world.pipeline.unet.register_forward_pre_hook(lambda module, arguments: calls.append(len(arguments[0])))
    world.guidance = guidance
    rendered(world, Intervention(), batch)
    plain = sum(calls)
    calls.clear()
    rendered(world, Doodl(looking(world), BOTH, settings_of("doodl", steps=3)), batch)
    assert sum(calls) == (1 + 2 * 3) * plain


def test_noise_is_the_same_as_the_original_s(world: World, batch: Batch) -> None:
    before, _ = latents(world, batch, steps=1)
    assert torch.equal(before, initial_noise(world.pipeline.latent_shape, list(range(8))))
