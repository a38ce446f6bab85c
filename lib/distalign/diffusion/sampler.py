"""The sampling loop all methods share: per-image conditioning, guidance as one doubled batch, stored latents."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distalign.diffusion.attention import Kept, PromptKeys, prompt_keys
from distalign.diffusion.noise import initial_noise
from distalign.diffusion.pipeline import Pipeline
from distalign.diffusion.schedule import Schedule, build_schedule
from distalign.diffusion.text import Padding, TextConditioning, encode_prompts


@dataclass
class StepGraph:
    """One U-Net evaluation whose autograd graph was kept: images `start:stop` at step `step`."""

    step: int
    start: int
    stop: int
    latents: Tensor  # what went in, a leaf, (stop - start, C, h, w)
    states: Tensor  # the guidance batch that went in, a leaf shared by the steps of these images
    prediction: Tensor  # guided, shaped like the latents


@dataclass
class Rollout:
    """What a sampling leaves behind.

    Attributes:
        z0: (B, C, h, w), ready to decode.
        latents: (S, B, C, h, w), the input of every step; None unless asked for.
        graphs: kept U-Net graphs in the order they were made, micro-batch by micro-batch, first step first.
        keys: of cross-attention, which collect gradients of these graphs; None where they are not kept.
    """

    schedule: Schedule
    z0: Tensor
    latents: Tensor | None = None
    graphs: list[StepGraph] = field(default_factory=list)
    keys: PromptKeys | None = None


def predict_noise(
    pipeline: Pipeline,
    latents: Tensor,
    timesteps: Tensor,
    states: Tensor,
    mask: Tensor | None,
    guidance: float,
    kept: Kept | None = None,
) -> Tensor:
    """Guided prediction (B, C, h, w) for latents (B, C, h, w), timesteps () or (B,), guidance batch (2B, L, D).

    At guidance 1 the empty prompt has no effect and is not evaluated. With `kept`, the keys and values of the guidance
    batch, `states` are not looked at.
    """
    if guidance == 1:
        half = len(latents)
        own = None if kept is None else kept | {"rows": kept["rows"][half:]}
        return evaluate_unet(pipeline, latents, timesteps, states[half:], None if mask is None else mask[half:], own)
    doubled = timesteps if timesteps.ndim == 0 else timesteps.repeat(2)
    empty, conditional = evaluate_unet(pipeline, latents.repeat(2, 1, 1, 1), doubled, states, mask, kept).chunk(2)
    return empty + guidance * (conditional - empty)


def evaluate_unet(
    pipeline: Pipeline,
    latents: Tensor,
    timesteps: Tensor,
    states: Tensor,
    mask: Tensor | None,
    kept: Kept | None = None,
) -> Tensor:
    """The U-Net's output (n, C, h, w) for latents (n, C, h, w), timesteps () or (n,), states (n, L, D)."""
    pipeline.evaluated += len(latents)
    with pipeline.precision():
        output = pipeline.network()(
            latents.to(pipeline.dtype),
            timesteps,
            encoder_hidden_states=states.to(pipeline.dtype),
            encoder_attention_mask=mask,
            cross_attention_kwargs=None if kept is None else {"kept": kept},
            return_dict=False,
        )[0]
    return output.to(latents.dtype)


def sample(
    pipeline: Pipeline,
    noise: Tensor,
    conditioning: TextConditioning,
    prompt_index: Tensor,
    steps: int | Schedule,
    guidance: float,
    micro_batch: int,
    keep: bool = False,
    graph_steps: Collection[int] = (),
    through_latents: bool = False,
    score: Callable[[int, Tensor, Tensor], Tensor] | None = None,
) -> Rollout:
    """Sample with DPM-Solver++ 2M from noise (B, C, h, w), image b conditioned on prompt `prompt_index[b]`.

    Nothing is differentiated, except that steps in `graph_steps` keep the graph of their U-Net evaluation: their
    input latent is detached, so the graphs of different steps are independent of each other; it collects a gradient
    only with `through_latents`. With `keep`, the input latents of every step are returned. `micro_batch` images are
    sampled together. `steps` may be a schedule, to sample by another one than the model's of so many steps.

    `score(i, latents, timestep)` predicts in the place of `predict_noise`; then all images are one micro-batch.
    """
    schedule = steps if isinstance(steps, Schedule) else build_schedule(pipeline.scheduler_config, steps)
    device = pipeline.device
    noise, prompt_index = noise.to(device), prompt_index.to(device)
    timesteps = torch.as_tensor(schedule.timesteps, device=device)
    rollout = Rollout(schedule, torch.empty_like(noise))
    if keep:
        rollout.latents = noise.new_empty(schedule.steps, *noise.shape)
    if score is None:
        with torch.set_grad_enabled(bool(graph_steps)):
            rollout.keys = prompt_keys(pipeline, conditioning)
    for start in range(0, len(noise), micro_batch):
        stop = min(start + micro_batch, len(noise))
        z, before = noise[start:stop], None
        states, mask = conditioning.batch(prompt_index[start:stop])
        prompted = None if rollout.keys is None else rollout.keys.batch(prompt_index[start:stop])
        states = states.detach().requires_grad_(bool(graph_steps) and conditioning.embeddings.requires_grad)
        for i in range(schedule.steps):
            if rollout.latents is not None:
                rollout.latents[i, start:stop] = z
            kept = i in graph_steps
            leaf = z.detach().requires_grad_(kept and through_latents)
            with torch.set_grad_enabled(kept):
                if score is not None:
                    output = score(i, leaf, timesteps[i])
                else:
                    output = predict_noise(pipeline, leaf, timesteps[i], states, mask, guidance, prompted)
            if kept:
                rollout.graphs.append(StepGraph(i, start, stop, leaf, states, output))
            z, before = advance(schedule, i, z, output.detach(), before)
        rollout.z0[start:stop] = z
    return rollout


def advance(schedule: Schedule, i: int, z: Tensor, output: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
    """One solver step: (z_{i+1}, m_i) from z_i, the network's output there and m_{i-1} (None at the first step)."""
    data = schedule.data_latent[i] * z + schedule.data_output[i] * output
    following = schedule.latent[i] * z + schedule.current[i] * data
    if before is not None and schedule.previous[i] != 0:
        following = following + schedule.previous[i] * before
    return following, data


def decode(pipeline: Pipeline, z0: Tensor, micro_batch: int) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] of latents (B, C, h, w); differentiable, except where the image saturates."""
    scaled = (z0 / pipeline.vae.config["scaling_factor"]).to(pipeline.dtype)
    with pipeline.precision():
        parts = [pipeline.vae.decode(z).sample for z in scaled.split(micro_batch)]
    return torch.cat(parts).to(z0.dtype).clamp(-1, 1)


@torch.no_grad()
def generate(
    pipeline: Pipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    micro_batch: int,
    padding: Padding = "longest",
    decode_batch: int | None = None,
) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1]; image b shows `prompts[b]` from the noise of `seeds[b]`.

    `micro_batch` images are sampled together and `decode_batch` decoded; unset: as many.
    """
    texts = list(dict.fromkeys(prompts))
    conditioning = encode_prompts(pipeline, texts, padding)
    rows = {text: row for row, text in enumerate(texts)}
    prompt_index = torch.tensor([rows[prompt] for prompt in prompts])
    noise = initial_noise(pipeline.latent_shape, seeds)
    rollout = sample(pipeline, noise, conditioning, prompt_index, steps, guidance, micro_batch)
    return decode(pipeline, rollout.z0, decode_batch or micro_batch)
