"""The stages of sampling at which a method may act. The loop is one: methods change what goes into it.

A method's images differ from the original's in nothing but what it does at its stage: noises, steps, guidance and
padding are the same. Nothing may depend on which images are sampled together.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distalign.diffusion.attention import PromptKeys, prompt_keys
from distalign.diffusion.noise import initial_noise
from distalign.diffusion.pipeline import Pipeline
from distalign.diffusion.sampler import decode, evaluate_unet, sample
from distalign.diffusion.text import Padding, TextConditioning, encode_prompts
from distalign.prompts import Prompt

EMPTY = -1  # in place of a row of the conditioning: the empty prompt


@dataclass(frozen=True)
class Batch:
    """Images that are sampled together.

    Attributes:
        prompts: of each image (B).
        index: of each image among those of its prompt (B).
        images_per_prompt: how many a prompt has in all.
        seed: of the run.
    """

    prompts: Sequence[Prompt]
    index: Sequence[int]
    images_per_prompt: int
    seed: int


@dataclass
class Sampling:
    """A batch on its way, as the stages see it.

    Attributes:
        conditioning: of the images' prompts, then of the intervention's branches.
        prompt_index: (B,), each image's row in `conditioning`.
        branch_index: (n,), the rows of the branches.
        memory: what a method keeps from step to step.
        keys: of cross-attention for the conditioning's rows; None where they are not kept.
    """

    pipeline: Pipeline
    batch: Batch
    conditioning: TextConditioning
    prompt_index: Tensor
    branch_index: Tensor
    steps: int
    guidance: float
    memory: dict[str, Any] = field(default_factory=dict)
    keys: PromptKeys | None = None


@dataclass(frozen=True)
class Step:
    """One step of a sampling: `number` counts from 0; latents (B, C, h, w)."""

    sampling: Sampling
    number: int
    timestep: Tensor
    latents: Tensor

    def evaluate(self, rows: Tensor) -> Tensor:
        """The U-Net's outputs (n, B, C, h, w) float32 for rows (n, B) of the conditioning; EMPTY: the empty prompt.

        The empty prompt is padded as the image's own prompt is.
        """
        sampling, outputs = self.sampling, []
        # Two rows a call, as plain sampling has: however many rows a method takes, it needs no more memory.
        for part in rows.split(2):
            states, mask = _states(sampling.conditioning, part, sampling.prompt_index)
            latents = self.latents.repeat(len(part), 1, 1, 1)
            kept = None
            if (keys := sampling.keys) is not None:
                empty = keys.empty(sampling.prompt_index).expand_as(part)
                kept = keys.take(torch.where(part == EMPTY, empty, keys.own(part)).flatten())
            outputs.append(evaluate_unet(sampling.pipeline, latents, self.timestep, states, mask, kept))
        return torch.cat(outputs).unflatten(0, rows.shape)

    @property
    def prompt_rows(self) -> Tensor:
        """(B,), rows of the images' own prompts."""
        return self.sampling.prompt_index

    @property
    def empty_rows(self) -> Tensor:
        """(B,), the empty prompt for every image."""
        return torch.full_like(self.sampling.prompt_index, EMPTY)

    def branch_rows(self, branch: int) -> Tensor:
        """(B,), the row of one branch for every image."""
        return self.sampling.branch_index[branch].expand(len(self.sampling.prompt_index))


class Intervention:
    """What a method does at each stage; here, nothing."""

    branches: Sequence[str] = ()
    """Further prompts the score is computed with."""

    def acts(self, batch: Batch) -> bool:
        """Whether it does anything to these images; where not, they are sampled as the original's are, bit for bit."""
        return True

    def prompts(self, batch: Batch) -> list[str]:
        """Stage prompt: the text of each image."""
        return [prompt.text for prompt in batch.prompts]

    def embed(self, conditioning: TextConditioning) -> TextConditioning:
        """Stage text embedding: what the text encoder made of prompts and branches."""
        return conditioning

    def latents(self, sampling: Sampling, noise: Tensor) -> Tensor:
        """Stage latents: the noise (B, C, h, w) to start from."""
        return noise

    def activations(self, sampling: Sampling) -> contextlib.AbstractContextManager[Any]:
        """Stage activations: hooks on the U-Net while the batch is sampled.

        Unless `score` is changed too, a call of the U-Net has the batch's images twice, with the empty prompt and with
        their own, in this order; at guidance 1 only the latter.
        """
        return contextlib.nullcontext()

    def score(self, step: Step) -> Tensor:
        """Stage score: the guided prediction (B, C, h, w). `step.evaluate` takes rows of the conditioning per image."""
        guidance = step.sampling.guidance
        if guidance == 1:
            (own,) = step.evaluate(step.prompt_rows[None])
            return own
        empty, own = step.evaluate(torch.stack([step.empty_rows, step.prompt_rows]))
        return empty + guidance * (own - empty)


@torch.no_grad()
def render(
    pipeline: Pipeline,
    intervention: Intervention,
    batch: Batch,
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    padding: Padding,
    decode_batch: int | None = None,
) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] of a batch, image b from the noise of `seeds[b]`, all sampled together.

    `decode_batch` images are decoded together; unset: all.
    """
    if not intervention.acts(batch):
        intervention = Intervention()
    prompts = intervention.prompts(batch)
    texts = list(dict.fromkeys([*prompts, *intervention.branches]))
    rows = {text: row for row, text in enumerate(texts)}
    device = pipeline.device
    sampling = Sampling(
        pipeline=pipeline,
        batch=batch,
        conditioning=intervention.embed(encode_prompts(pipeline, texts, padding)),
        prompt_index=torch.tensor([rows[prompt] for prompt in prompts], device=device),
        branch_index=torch.tensor([rows[text] for text in intervention.branches], device=device, dtype=torch.long),
        steps=steps,
        guidance=guidance,
    )
    noise = intervention.latents(sampling, initial_noise(pipeline.latent_shape, seeds).to(device))
    score: Callable[[int, Tensor, Tensor], Tensor] = lambda i, z, t: intervention.score(Step(sampling, i, t, z))  # noqa: E731
    with intervention.activations(sampling):  # which may change weights
        sampling.keys = prompt_keys(pipeline, sampling.conditioning)
        rollout = sample(
            pipeline, noise, sampling.conditioning, sampling.prompt_index, steps, guidance, len(noise), score=score
        )
    return decode(pipeline, rollout.z0, decode_batch or len(noise))


def _states(conditioning: TextConditioning, rows: Tensor, prompt_index: Tensor) -> tuple[Tensor, Tensor | None]:
    """Text states (n * B, L, D) and mask of rows (n, B), the empty prompt by the prompt whose place it takes."""
    own = prompt_index.expand_as(rows)
    used = torch.where(rows == EMPTY, own, rows).flatten()
    empty = conditioning.unconditional[conditioning.unconditional_index[used]]
    states = torch.where((rows == EMPTY).view(-1, 1, 1), empty, conditioning.embeddings[used])
    return states, None if conditioning.mask is None else conditioning.mask[used]
