"""Real images as the diffusion model's autoencoder would draw them: what generated images look like up close."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from distalign.diffusion.pipeline import load_pipeline
from distalign.diffusion.sampler import decode

NOISE = 0.1  # standard deviation added to latents of unit variance, about what a sampler leaves


def reconstructor(backbone: Path, device: torch.device, seed: int, noise: float = NOISE) -> Callable[[Tensor], Tensor]:
    """A function that encodes images (n, 3, H, W) in [-1, 1], disturbs the latents, and decodes them.

    Raises:
        UserError: `backbone` is not a pipeline.
    """
    pipeline = load_pipeline(backbone, device)
    scale = pipeline.vae.config["scaling_factor"]
    generator = torch.Generator(device).manual_seed(seed)

    @torch.no_grad()
    def reconstruct(images: Tensor) -> Tensor:
        latents = pipeline.vae.encode(images.to(device)).latent_dist.mean * scale
        disturbance = torch.randn(latents.shape, generator=generator, device=device)
        return decode(pipeline, latents + noise * disturbance, len(images))

    return reconstruct
