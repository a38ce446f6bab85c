"""Steps whose scores are known, and the U-Net's evaluations counted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distalign.diffusion.intervention import Batch, Intervention, Sampling, Step, render
from distalign.methods.world import World

from .conftest import Images


@dataclass(frozen=True)
class Known(Step):
    """`scores` (n, B, C, h, w): of the prompt, of each branch, and last of the empty prompt."""

    scores: Tensor

    def evaluate(self, rows: Tensor) -> Tensor:
        return self.scores[rows, torch.arange(rows.shape[1])]


def sampling(batch: Batch, branches: int, steps: int, guidance: float, training_steps: int = 1000) -> Sampling:
    """A sampling of steps of this kind."""
    pipeline: Any = type("Pipeline", (), {"scheduler_config": {"num_train_timesteps": training_steps}})
    own, others = torch.zeros(len(batch.prompts), dtype=torch.long), torch.arange(1, branches + 1)
    nothing: Any = None
    return Sampling(pipeline, batch, nothing, own, others, steps, guidance)


def known_step(own: Sampling, number: int, scores: Tensor, timestep: int = 500) -> Known:
    """One step of it."""
    return Known(own, number, torch.tensor(timestep), torch.zeros_like(scores[0]), scores)


def calls(world: World, intervention: Intervention, batch: Batch, guidance: float) -> list[int]:
    """How many images each call of the U-Net has."""
    sizes: list[int] = []
    hook = world.pipeline.unet.register_forward_pre_hook(lambda module, arguments: sizes.append(len(arguments[0])))
    seeds = list(range(len(batch.prompts)))
    render(world.pipeline, intervention, batch, seeds, world.steps, guidance, world.padding)
    hook.remove()
    return sizes


def cost(world: World, intervention: Intervention, batch: Batch) -> float:
    """Evaluations relative to plain sampling."""
    return sum(calls(world, intervention, batch, world.guidance)) / (2 * len(batch.prompts) * world.steps)


def changes_each_image_by_itself(
    world: World, both_ways: Callable[[World, Intervention], Images], it: Intervention
) -> None:
    """Images are the same made together and one by one, and not the original's."""
    images = both_ways(world, it)
    torch.testing.assert_close(images.together, images.alone, atol=2e-4, rtol=0)
    assert (images.together - both_ways(world, Intervention()).together).abs().max() > 1e-3
