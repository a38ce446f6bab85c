"""Initial latents, one random generator per image."""

from collections.abc import Sequence

import torch
from torch import Tensor


def initial_noise(shape: tuple[int, int, int], seeds: Sequence[int]) -> Tensor:
    """Standard normal latents (B, C, h, w), float32 on the CPU.

    Each image has a generator of its own, so its noise depends on its seed alone: not on the batch it is in,
    nor on the device, nor on the number of processes.
    """
    noise = torch.empty(len(seeds), *shape)
    for row, seed in zip(noise, seeds, strict=True):
        row.normal_(generator=torch.Generator().manual_seed(seed))
    return noise
