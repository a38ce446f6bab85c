"""The mini world's text encoder and U-Net, trained together on latents and captions."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from distalign.miniworld.pretrain.autoencoder import LATENT_CHANNELS
from distalign.miniworld.pretrain.loop import Average, Progress, optimise, warm_cosine
from distalign.miniworld.pretrain.tokenizer import MAX_LENGTH

log = logging.getLogger(__name__)

_UNCONDITIONAL = 0.1  # share of captions dropped, for classifier-free guidance
_SNR_CAP = 5.0  # min-SNR weighting (Hang et al. 2023)
_SAVE_EVERY = 250
# Stable Diffusion 1.5's own noise schedule.
_SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass
class Denoiser:
    """The two networks that are trained together."""

    unet: Any  # UNet2DConditionModel; diffusers imports lazily, which hides its classes from type checkers
    text_encoder: Any  # CLIPTextModel

    def modules(self) -> nn.ModuleList:
        """Both, U-Net first."""
        return nn.ModuleList([self.unet, self.text_encoder])


def build_denoiser(tokenizer: CLIPTokenizer) -> Denoiser:
    """Random networks of Stable Diffusion's kind: attention to the text at both resolutions."""
    width = 128
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_LENGTH,
            projection_dim=width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    embeddings: Any = text_encoder.get_input_embeddings()
    nn.init.normal_(embeddings.weight, std=0.05)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=width,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    return Denoiser(unet, text_encoder)


def token_ids(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Token ids (n, MAX_LENGTH), padded to full length as Stable Diffusion was trained."""
    encoded = tokenizer(list(captions), padding="max_length", max_length=MAX_LENGTH, truncation=True)
    return torch.tensor(encoded["input_ids"])


def train_denoiser(
    latents: Tensor,
    captions: Sequence[str],
    tokenizer: CLIPTokenizer,
    steps: int,
    seed: int,
    state: Path,
    batch: int = 64,
    rate: float = 1.2e-3,
) -> Denoiser:
    """Train on scaled latents (n, 16, 8, 8) with one caption each; returns the averaged networks.

    Continues from `state` (a file of this function's own) when it exists, and saves there at an interval.
    """
    torch.manual_seed(seed)
    denoiser = build_denoiser(tokenizer)
    networks = denoiser.modules()
    log.info("denoiser: %.2f M parameters", sum(p.numel() for p in networks.parameters()) / 1e6)
    average = Average(networks, 0.9985)
    optimiser, schedule = optimise(networks.parameters(), rate, warm_cosine(steps, 200, hold=0.5))
    first = _resume(state, networks, average, optimiser, schedule)
    ids, empty = token_ids(tokenizer, captions), token_ids(tokenizer, [""])[0]
    noise_schedule: Any = DDPMScheduler(**_SCHEDULE)
    signal = noise_schedule.alphas_cumprod
    ratio = signal / (1 - signal)
    weight = ratio.clamp(max=_SNR_CAP) / ratio
    progress = Progress("denoiser", steps, 100)
    for step in range(first, steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        index = torch.randint(len(latents), (batch,), generator=generator)
        clean, text = latents[index].float(), ids[index].clone()
        text[torch.rand(batch, generator=generator) < _UNCONDITIONAL] = empty
        time = torch.randint(1000, (batch,), generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        noisy = noise_schedule.add_noise(clean, noise, time)
        predicted = denoiser.unet(noisy, time, denoiser.text_encoder(text)[0]).sample
        error = ((predicted - noise) ** 2).mean((1, 2, 3))
        optimiser.zero_grad()
        (error * weight[time]).mean().backward()
        nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        average.update(networks)
        progress.add(step, error=error.mean())
        if (step + 1) % _SAVE_EVERY == 0:
            _save(state, step + 1, networks, average, optimiser, schedule)
    averaged: Any = average.module
    return Denoiser(*averaged)


def _save(state: Path, step: int, networks: nn.Module, average: Average, *stateful: object) -> None:
    parts = {"step": step, "networks": networks.state_dict(), "average": average.module.state_dict()}
    parts |= {f"stateful{i}": s.state_dict() for i, s in enumerate(stateful)}  # type: ignore[attr-defined]
    temporary = state.with_suffix(".tmp")
    torch.save(parts, temporary)
    temporary.replace(state)


def _resume(state: Path, networks: nn.Module, average: Average, *stateful: object) -> int:
    if not state.exists():
        return 0
    parts = torch.load(state, weights_only=True)
    networks.load_state_dict(parts["networks"])
    average.module.load_state_dict(parts["average"])
    average.step = parts["step"]
    for i, s in enumerate(stateful):
        s.load_state_dict(parts[f"stateful{i}"])  # type: ignore[attr-defined]
    log.info("denoiser: going on from step %d", parts["step"])
    return int(parts["step"])


def assemble(vae: Any, denoiser: Denoiser, tokenizer: CLIPTokenizer) -> Any:
    """An ordinary Stable Diffusion pipeline of the trained parts."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=denoiser.text_encoder,
        tokenizer=tokenizer,
        unet=denoiser.unet,
        scheduler=PNDMScheduler(**_SCHEDULE, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
