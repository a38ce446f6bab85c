"""The mini world's AutoencoderKL: 64 x 64 pictures to 8 x 8 latents with 16 channels."""

import logging
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from distalign.miniworld.pretrain.loop import Average, Progress, mixed_precision, optimise, to_signed, warm_cosine

log = logging.getLogger(__name__)

LATENT_CHANNELS = 16
_KL_WEIGHT = 2e-5
_CROPPED = 0.7  # share of the steps on 32-pixel crops, which see more pictures in the same time


def build_autoencoder() -> Any:  # diffusers imports lazily, which hides its classes from type checkers
    """A small convolutional autoencoder of Stable Diffusion's own kind."""
    channels = (16, 32, 64, 96)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def reconstruction_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """Absolute and squared error of the picture and absolute error of its edges, which keeps small features sharp.

    Errors count relative to the brightness around them, as they do for an eye: without this, dark faces come out
    blurred, because their contrasts are small in absolute numbers.
    """
    brightness = F.avg_pool2d((images.mean(1, keepdim=True) + 1) / 2, 5, 1, 2, count_include_pad=False)
    weight = 0.4 / (brightness + 0.12)
    error = decoded - images
    across = (weight[..., 1:] * error.diff(dim=-1).abs()).mean()
    down = (weight[..., 1:, :] * error.diff(dim=-2).abs()).mean()
    return (weight * error.abs()).mean() + 2 * (weight * error**2).mean() + across + down


def _draw_batch(images: Tensor, batch: int, crop: bool) -> Tensor:
    """Random pictures, half of them mirrored; `crop` cuts twice as many quarters of pictures."""
    x = to_signed(images[torch.randint(len(images), (2 * batch if crop else batch,))])
    if crop:
        left, top = (8 * int(i) for i in torch.randint(5, (2,)))
        x = x[..., top : top + 32, left : left + 32]
    return (x.flip(3) if torch.rand(()) < 0.5 else x).contiguous(memory_format=torch.channels_last)


def train_autoencoder(images: Tensor, steps: int, seed: int, batch: int = 32, rate: float = 2e-3) -> Any:
    """Train on uint8 pictures (n, 3, 64, 64); sets the scaling factor so that latents have unit deviation."""
    torch.manual_seed(seed)
    vae = build_autoencoder().to(memory_format=torch.channels_last)
    optimiser, schedule = optimise(vae.parameters(), rate, warm_cosine(steps, 100, hold=0.3), betas=(0.9, 0.98))
    progress = Progress("autoencoder", steps, 100)
    for step in range(steps):
        x = _draw_batch(images, batch, crop=step < _CROPPED * steps)
        with mixed_precision(x.device):
            posterior = vae.encode(x).latent_dist
            decoded = vae.decode(posterior.sample()).sample
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        reconstruction = reconstruction_loss(decoded.float(), x)
        optimiser.zero_grad()
        (reconstruction + _KL_WEIGHT * LATENT_CHANNELS * kl).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        progress.add(step, reconstruction=reconstruction, kl=kl)
    vae = vae.to(memory_format=torch.contiguous_format).eval()
    deviation = encode(vae, images[:2000]).std().item()
    vae.register_to_config(scaling_factor=1 / deviation)
    log.info("autoencoder: PSNR %.2f dB, latent deviation %.3f", quality(vae, images[-500:]), deviation)
    return vae


def refine_decoder(
    vae: Any, images: Tensor, latents: Tensor, steps: int, seed: int, batch: int = 48, rate: float = 1.5e-3
) -> None:
    """Train the decoder alone, on latents (n, 16, 8, 8) as `encode` gives them: sharper pictures, same latent space.

    Works on quarters of pictures, which see more of them in the same time. Replaces the decoder by its average.
    """
    torch.manual_seed(seed)
    vae.requires_grad_(False).train()
    networks = torch.nn.ModuleList([vae.decoder, vae.post_quant_conv]).requires_grad_(True)
    networks.to(memory_format=torch.channels_last)
    average = Average(networks, 0.998)
    optimiser, schedule = optimise(networks.parameters(), rate, warm_cosine(steps, 100, hold=0.4), betas=(0.9, 0.98))
    progress = Progress("decoder", steps, 100)
    for step in range(steps):
        index = torch.randint(len(images), (batch,))
        left, top = (int(i) for i in torch.randint(4, (2,)))
        z = latents[index, :, top : top + 5, left : left + 5].float()
        x = to_signed(images[index, :, 8 * top : 8 * top + 40, 8 * left : 8 * left + 40])
        with mixed_precision(x.device):
            decoded = vae.decode(z.contiguous(memory_format=torch.channels_last)).sample
        loss = reconstruction_loss(decoded.float(), x)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        average.update(networks)
        progress.add(step, reconstruction=loss)
    averaged: Any = average.module
    vae.decoder, vae.post_quant_conv = averaged
    vae.to(memory_format=torch.contiguous_format).eval()
    log.info("decoder: PSNR %.2f dB", quality(vae, images[-500:]))


@torch.no_grad()
def encode(vae: Any, images: Tensor, batch: int = 200) -> Tensor:
    """Latent means (n, 16, 8, 8), not scaled."""
    parts = []
    for chunk in images.split(batch):
        with mixed_precision(chunk.device):
            x = to_signed(chunk).contiguous(memory_format=torch.channels_last)
            parts.append(vae.encode(x).latent_dist.mean.float().contiguous())
    return torch.cat(parts)


@torch.no_grad()
def quality(vae: Any, images: Tensor) -> float:
    """Peak signal-to-noise ratio of the reconstruction in dB."""
    x = to_signed(images)
    decoded = torch.cat([vae.decode(vae.encode(c).latent_dist.mean).sample for c in x.split(100)])
    return float(10 * torch.log10(4 / F.mse_loss(decoded.clamp(-1, 1), x)))
