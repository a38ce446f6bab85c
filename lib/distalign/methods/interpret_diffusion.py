"""InterpretDiffusion (Li et al., CVPR 2024, arXiv 2311.17216): a vector per class, added behind the U-Net's middle."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from distalign.config.attributes import ATTRIBUTES
from distalign.diffusion.intervention import Intervention, Sampling
from distalign.diffusion.noise import initial_noise
from distalign.diffusion.pipeline import Pipeline
from distalign.diffusion.sampler import evaluate_unet, sample
from distalign.diffusion.text import TextConditioning, encode_prompts
from distalign.methods.assignment import Target, assign, cells
from distalign.methods.world import World
from distalign.prompts.phrases import of_anyone
from distalign.store.seeds import stable_seed

_TABLE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")


class InterpretDiffusion(Intervention):
    """h_c → h_c + λ Σ_a c_{y_a}: h_c is the middle block's output with the image's prompt, y its cell.

    `vectors`: (C, h, w) by `attribute/class`. The evaluation with the empty prompt stays as it is.
    """

    def __init__(self, target: Target, assignment: str, scale: float, vectors: Mapping[str, Tensor]) -> None:
        self.target, self.assignment, self.scale, self.vectors = target, assignment, scale, vectors

    @contextlib.contextmanager
    def activations(self, sampling: Sampling) -> Iterator[None]:
        """Adds each image's sum of vectors while the batch is sampled."""
        kinds = cells(self.target)
        sums = torch.stack([sum_of(self.vectors, cell) for cell in kinds]) * self.scale
        shifts = sums[assign(self.target, sampling.batch, self.assignment)]
        with shifted(sampling.pipeline.unet, shifts):
            yield


def sum_of(vectors: Mapping[str, Tensor], cell: Mapping[str, str]) -> Tensor:
    """(C, h, w), the vectors of a cell's classes added up."""
    return torch.stack([vectors[f"{attribute}/{name}"] for attribute, name in cell.items()]).sum(0)


@contextlib.contextmanager
def shifted(unet: Any, shifts: Tensor) -> Iterator[None]:
    """Adds shifts (B, C, h, w) to the last B rows of the middle block's output.

    With guidance a call has 2B rows, the images' own prompts last; at guidance 1 it has these alone.
    """

    def add(module: Any, arguments: Any, output: Tensor) -> Tensor:
        rest = len(output) - len(shifts)
        return torch.cat([output[:rest], output[rest:] + shifts.to(output)])

    handle = unet.mid_block.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def fit(world: World, settings: Mapping[str, Any], target: Target) -> dict[str, Tensor]:
    """A vector (C, h, w) float32 for every class of each aligned attribute, by `attribute/class`."""
    neutral = encode_prompts(world.pipeline, [of_anyone(world.train[0], {}).text], world.padding)
    fitted = {}
    for attribute, names in ATTRIBUTES.items():
        for name in names if attribute in target else ():
            clean = pictures(world, of_anyone(world.train[0], {attribute: name}).text, settings["images"])
            seed = stable_seed(world.seed, "interpret_diffusion", "training", attribute, name)
            fitted[f"{attribute}/{name}"] = learn(world.pipeline, clean, neutral, settings, seed)
    return fitted


@torch.no_grad()
def pictures(world: World, text: str, count: int) -> Tensor:
    """Latents (count, C, h, w) of pictures of a prompt."""
    seeds = [stable_seed(world.seed, "interpret_diffusion", text, i) for i in range(count)]
    noise, rows = initial_noise(world.pipeline.latent_shape, seeds), torch.zeros(count, dtype=torch.long)
    conditioning = encode_prompts(world.pipeline, [text], world.padding)
    rows = rows.to(world.pipeline.device)
    return sample(world.pipeline, noise, conditioning, rows, world.steps, world.guidance, world.micro_batch).z0


def learn(
    pipeline: Pipeline, clean: Tensor, neutral: TextConditioning, settings: Mapping[str, Any], seed: int
) -> Tensor:
    """The vector c that denoises latents (n, C, h, w) best under a prompt that does not say what they show.

    min_c E ‖ε(z_t, t, neutral; h + c) − ε‖², t uniform, with Adam from c = 0; of a model that predicts v, v for ε.
    """
    vector = torch.zeros(_middle(pipeline, clean[:1], neutral), device=clean.device, requires_grad=True)
    optimiser = torch.optim.Adam([vector], lr=settings["learning_rate"])
    for noisy, time, wanted in batches(pipeline, clean, settings["steps"], settings["batch_size"], seed):
        error = (predict(pipeline, vector, noisy, time, neutral) - wanted) ** 2
        optimiser.zero_grad()
        error.sum().backward()  # of the mean, half precision would lose the gradient
        assert vector.grad is not None
        vector.grad /= error.numel()
        optimiser.step()
    return vector.detach()


def predict(pipeline: Pipeline, vector: Tensor, noisy: Tensor, time: Tensor, neutral: TextConditioning) -> Tensor:
    """The U-Net's output (B, C, h, w) for noisy latents of this shape, times (B,) and one prompt, a vector added."""
    states = neutral.embeddings.detach().expand(len(noisy), -1, -1)
    with shifted(pipeline.unet, vector.expand(len(noisy), *vector.shape)):
        return evaluate_unet(pipeline, noisy, time, states, None)


def batches(
    pipeline: Pipeline, clean: Tensor, steps: int, size: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Noisy latents (B, C, h, w), times (B,) and what to predict (B, C, h, w), in epochs over the clean ones."""
    config = pipeline.scheduler_config
    schedule: Any = DDPMScheduler(**{key: config[key] for key in _TABLE if config.get(key) is not None})
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same draws on every device
    epochs = math.ceil(steps * size / len(clean))
    order = [i for _ in range(epochs) for i in torch.randperm(len(clean), generator=generator).tolist()]
    for step in range(steps):
        own = order[step * size : (step + 1) * size]
        time = torch.randint(schedule.config.num_train_timesteps, (size,), generator=generator).to(clean.device)
        noise = torch.randn(size, *clean.shape[1:], generator=generator).to(clean.device)
        noisy = schedule.add_noise(clean[own], noise, time)
        velocity = schedule.config.prediction_type == "v_prediction"
        yield noisy, time, schedule.get_velocity(clean[own], noise, time) if velocity else noise


@torch.no_grad()
def _middle(pipeline: Pipeline, latent: Tensor, neutral: TextConditioning) -> tuple[int, ...]:
    """The shape (C, h, w) of the middle block's output."""
    shapes: list[tuple[int, ...]] = []
    handle = pipeline.unet.mid_block.register_forward_hook(
        lambda module, arguments, output: shapes.append(output.shape)
    )
    try:
        evaluate_unet(pipeline, latent, torch.zeros((), device=latent.device), neutral.embeddings, None)
    finally:
        handle.remove()
    return tuple(shapes[0][1:])


def apply(world: World, settings: Mapping[str, Any], target: Target, fitted: Mapping[str, Tensor]) -> Intervention:
    """The intervention with fitted vectors."""
    return InterpretDiffusion(target, settings["assignment"], settings["scale"], fitted)
