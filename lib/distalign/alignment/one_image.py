"""The one-image task of section 4.2 (Figure 1a): a soft prompt learns to make a fixed image, by each estimator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from distalign.alignment.gradient import adjoint_sweep, step_weights
from distalign.alignment.losses import similarity_loss
from distalign.diffusion.adapters import add_prefix
from distalign.diffusion.pipeline import Pipeline
from distalign.diffusion.sampler import Rollout, decode, predict_noise, sample
from distalign.diffusion.text import Padding, TextConditioning, encode_prompts
from distalign.encoders import ImageEncoder

Noise = Callable[[int], Tensor]


@dataclass(frozen=True)
class OneImageTask:
    """How images are made of soft prompts and compared with the target.

    Attributes:
        pipeline: the frozen model; while soft prompts are learned they are its prompt prefix.
        encoders: of the image loss (eq. 7).
        target: (1, 3, H, W), the fixed image, in [-1, 1].
        padding, guidance, steps: how images are sampled.
        micro_batch: images and U-Net evaluations in flight at once.
    """

    pipeline: Pipeline
    encoders: Mapping[str, ImageEncoder]
    target: Tensor
    padding: Padding
    guidance: float
    steps: int
    micro_batch: int

    def losses(self, z0: Tensor) -> tuple[Tensor, Tensor]:
        """Image loss (R,) to the target of each final latent, and its gradient, shaped like z0 (R, C, h, w)."""
        with torch.no_grad():
            wanted = {name: encoder.encode_images(self.target) for name, encoder in self.encoders.items()}
        values, gradients = [], []
        for part in z0.detach().split(self.micro_batch):
            leaf = part.requires_grad_()
            images = decode(self.pipeline, leaf, self.micro_batch)
            loss = similarity_loss({n: e.encode_images(images) for n, e in self.encoders.items()}, wanted)
            gradients += torch.autograd.grad(loss.sum(), leaf)
            values.append(loss.detach())
        return torch.cat(values), torch.cat(gradients)


@dataclass(frozen=True)
class Curves:
    """Per iteration and run, before its update: image loss and norm of the soft prompt's gradient, (K, R) float64."""

    loss: np.ndarray
    gradient_norm: np.ndarray


def random_words(pipeline: Pipeline, tokens: int, seed: int) -> Tensor:
    """A soft prompt (tokens, D) float32 to start from: the embeddings of random words."""
    table = pipeline.text_encoder.embeddings.token_embedding.weight
    words = torch.randint(len(table), (tokens,), generator=torch.Generator().manual_seed(seed))
    return table[words.to(table.device)].detach().float()


def optimise_soft_prompts(
    task: OneImageTask, starts: Tensor, noise: Noise, estimators: Sequence[str], iterations: int, rate: float
) -> dict[str, Curves]:
    """Optimise R soft prompts for each of E estimators, every one by itself, by Adam; they only share batches.

    The whole prompt is learned: start of text, the soft prompt, end of text. All estimators start from the same soft
    prompts and noises. A gradient that is not finite counts as zero, for its soft prompt alone.

    Args:
        task: what they are optimised for.
        starts: (R, tokens, D).
        noise: initial latents (R, C, h, w) of an iteration.
        estimators: names, see `alignment.gradient.WEIGHTS`.
        iterations: number of updates, K.
        rate: learning rate.

    Returns:
        curves of each estimator.
    """
    pipeline, (runs, tokens, _), many = task.pipeline, starts.shape, len(estimators)
    weights = [name for name in estimators for _ in range(runs)]
    embeddings = pipeline.text_encoder.embeddings
    vocabulary = embeddings.token_embedding
    add_prefix(pipeline, starts.repeat(many, 1, 1).flatten(0, 1))
    prefix = embeddings.token_embedding.prefix
    optimiser = torch.optim.Adam([prefix], rate)
    losses, norms = [], []
    for iteration in tqdm(range(iterations), desc="soft prompts", disable=None):
        conditioning = encode_soft_prompts(pipeline, many * runs, tokens, task.padding)
        loss = _accumulate(task, conditioning, noise(iteration).repeat(many, 1, 1, 1), weights)
        gradient = prefix.grad.view(many * runs, -1)
        losses.append(loss.double().cpu().numpy())
        norms.append(gradient.norm(dim=1).double().cpu().numpy())
        gradient[~gradient.isfinite().all(dim=1)] = 0
        optimiser.step()
        optimiser.zero_grad()
    embeddings.token_embedding, pipeline.prefix_ids = vocabulary, []
    parts = [np.split(np.array(values), many, axis=1) for values in (losses, norms)]
    return {name: Curves(*curves) for name, *curves in zip(estimators, *parts, strict=True)}


def encode_soft_prompts(pipeline: Pipeline, prompts: int, tokens: int, padding: Padding) -> TextConditioning:
    """Conditioning of P prompts, the p-th made of the p-th `tokens` vectors of the pipeline's prefix alone."""
    everything = pipeline.prefix_ids
    parts = []
    for prompt in range(prompts):
        pipeline.prefix_ids = everything[prompt * tokens : (prompt + 1) * tokens]
        parts.append(encode_prompts(pipeline, [""], padding))
    pipeline.prefix_ids = everything
    index = torch.zeros(prompts, dtype=torch.long, device=pipeline.device)
    return TextConditioning(torch.cat([part.embeddings for part in parts]), parts[0].unconditional, index, None)


def _accumulate(task: OneImageTask, conditioning: TextConditioning, noise: Tensor, weights: Sequence[str]) -> Tensor:
    """Add the gradient of every image's loss, each by its own estimator, to the prefix; returns the losses (B,)."""
    leaf, index = conditioning.leaf(), torch.arange(len(noise), device=task.pipeline.device)
    rollout = sample(task.pipeline, noise, leaf, index, task.steps, task.guidance, task.micro_batch, keep=True)
    loss, cotangent = task.losses(rollout.z0)
    accumulate_by_image(task.pipeline, rollout, cotangent, leaf, index, task.guidance, weights, task.micro_batch)
    conditioning.backward(leaf)
    return loss


def accumulate_by_image(
    pipeline: Pipeline,
    rollout: Rollout,
    cotangent: Tensor,
    leaf: TextConditioning,
    prompt_index: Tensor,
    guidance: float,
    weights: Sequence[str],
    micro_batch: int,
) -> None:
    """What `accumulate_gradients` does, but image b by the estimator `weights[b]`, and for text embeddings only.

    One reverse sweep serves all: where the estimator is not the exact one, its own weight of dL/dz0 takes the place
    of the adjoint. `rollout` must have its latents.
    """
    schedule, latents = rollout.schedule, rollout.latents
    assert latents is not None
    timesteps = torch.as_tensor(schedule.timesteps, device=pipeline.device)
    table = np.array([step_weights(schedule, name) for name in weights])  # of the exact one: not used
    scale = torch.as_tensor(table, device=pipeline.device, dtype=cotangent.dtype)[:, :, None, None, None]
    exact = torch.tensor([name == "exact" for name in weights], device=pipeline.device)[:, None, None, None]
    for image in torch.arange(len(cotangent), device=pipeline.device).split(micro_batch):

        def vjp(i: int, adjoint: Tensor, image: Tensor = image) -> Tensor:
            z = latents[i, image].requires_grad_()
            states, mask = leaf.batch(prompt_index[image])
            prediction = predict_noise(pipeline, z, timesteps[i], states, mask, guidance)
            prediction.backward(torch.where(exact[image], adjoint, scale[image, i] * cotangent[image]))
            assert z.grad is not None
            return z.grad

        adjoint_sweep(schedule, cotangent[image], 1.0, vjp)
