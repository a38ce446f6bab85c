"""EquiSteer (Gaintseva et al., ECCV 2026, arXiv 2607.01147): the attribute's part of cross-attention is exchanged."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distalign.config.attributes import ATTRIBUTES, WORDS
from distalign.diffusion.intervention import Intervention, Sampling
from distalign.diffusion.noise import initial_noise
from distalign.diffusion.sampler import sample
from distalign.diffusion.schedule import build_schedule
from distalign.diffusion.text import encode_prompts
from distalign.methods.assignment import Target, assign, cells
from distalign.methods.world import World
from distalign.prompts import Prompt, spread
from distalign.prompts.phrases import ANYONE, say
from distalign.store.seeds import stable_seed

_VANISHED = 1e-4  # a singular value this far below the largest is rounding

# (layer, step, output (n, N, D)) -> what takes its place, or None
Act = Callable[[str, int, Tensor], Tensor | None]
# (layer, step, output (n, N, D)) -> (n, ...)
Read = Callable[[str, int, Tensor], Tensor]


class EquiSteer(Intervention):
    """x → ‖x‖ x' / ‖x'‖ with x' = x − P_a x + λ α_y s_y for one attribute a after the other.

    x (D,) is a cross-attention's output at one position, for the image's own prompt; s_y the unit direction of the
    image's class, P_a the projection onto the span of those of all its classes, α_y how far images of prompts that
    say the class lie along it. All are a layer's and a step's own; of the fitted steps the nearest counts.

    `fitted`: `timesteps` (S,), `ATTRIBUTE/directions/LAYER` (S, K, D), `ATTRIBUTE/magnitudes/LAYER` (S, K).
    """

    def __init__(self, target: Target, settings: Mapping[str, Any], fitted: Mapping[str, Tensor]) -> None:
        self.target, self.settings = target, settings
        self.timesteps = fitted["timesteps"].cpu().numpy()
        self.attributes = [attribute for attribute in ATTRIBUTES if attribute in target]
        self.bases: dict[tuple[str, str], Tensor] = {}
        self.shifts: dict[tuple[str, str], Tensor] = {}
        for key, directions in fitted.items():
            if "/directions/" in key:
                attribute, layer = key.split("/directions/")
                magnitudes = fitted[f"{attribute}/magnitudes/{layer}"]
                self.bases[attribute, layer] = basis(directions).float()
                self.shifts[attribute, layer] = settings["scale"] * magnitudes[..., None] * directions

    @contextlib.contextmanager
    def activations(self, sampling: Sampling) -> Iterator[None]:
        """Steers the rows of the images' own prompts while the batch is sampled."""
        images, device = len(sampling.batch.prompts), sampling.pipeline.device
        kinds, chosen = cells(self.target), assign(self.target, sampling.batch, self.settings["assignment"])
        classes, free = {}, {}
        for attribute in self.attributes:
            names = [ATTRIBUTES[attribute].index(kinds[cell][attribute]) for cell in chosen]
            said = [self.settings["gate"] and says(prompt, attribute) for prompt in sampling.batch.prompts]
            classes[attribute] = torch.tensor(names, device=device)
            free[attribute] = ~torch.tensor(said, device=device).view(-1, 1, 1)

        def steer(layer: str, step: int, output: Tensor) -> Tensor:
            rest = len(output) - images  # the rows of the empty prompt, none at guidance 1
            before = after = output[rest:].float()
            for attribute in self.attributes:
                shifts = self.shifts[attribute, layer][step, classes[attribute], None]
                steered = exchange(after, self.bases[attribute, layer][step], shifts)
                after = torch.where(free[attribute], steered, after)
            return torch.cat([output[:rest], with_norm_of(before, after).to(output.dtype)])

        schedule = build_schedule(sampling.pipeline.scheduler_config, sampling.steps)
        with cross_attention(sampling.pipeline.unet, nearest(self.timesteps, schedule.timesteps), steer):
            yield


def exchange(x: Tensor, span: Tensor, shift: Tensor) -> Tensor:
    """Takes from x (..., D) its part in the span of orthonormal rows (r, D), and adds a shift."""
    return x - x @ span.T @ span + shift


def with_norm_of(before: Tensor, after: Tensor) -> Tensor:
    """`after` (..., D), each vector as long as that of `before`."""
    length = after.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(after.dtype).tiny)
    return after * (before.norm(dim=-1, keepdim=True) / length)


def basis(directions: Tensor) -> Tensor:
    """Orthonormal rows (..., K - 1, D), float64, with the span of K unit directions (..., K, D) that depend linearly.

    Where the span has fewer dimensions, rows are zero.
    """
    _, size, rows = torch.linalg.svd(directions.double().cpu(), full_matrices=False)
    kept = size > _VANISHED * size[..., :1]
    return (rows * kept[..., None])[..., : directions.shape[-2] - 1, :].to(directions.device)


def says(prompt: Prompt, attribute: str) -> bool:
    """Whether a prompt names a class of the attribute, among the attribute words right before its concept."""
    own = "|".join(WORDS[attribute].values())
    others = "|".join(word for words in WORDS.values() for word in words.values())
    nouns = f"{re.escape(prompt.concept)}|{ANYONE}"
    return re.search(rf"\b({own}) (({others}) )*({nouns})\b", prompt.text, re.IGNORECASE) is not None


def nearest(fitted: np.ndarray, timesteps: np.ndarray) -> list[int]:
    """The number of the nearest fitted timestep (F,) for each of a sampling's (S,); of two equally near, the first."""
    return list(map(int, np.abs(fitted[:, None] - timesteps).argmin(axis=0)))


@contextlib.contextmanager
def cross_attention(unet: Any, steps: Iterable[int], act: Act) -> Iterator[None]:
    """Calls `act` with every cross-attention's output and the step's number, which `steps` has for each U-Net call.

    To read it off the call's timestep would make the CPU wait for a GPU at every step.
    """
    numbers, step = iter(steps), 0

    def note(module: Any, arguments: Any) -> None:
        nonlocal step
        step = next(numbers)

    def hook(layer: str) -> Callable[[Any, Any, Tensor], Tensor | None]:
        def call(module: Any, arguments: Any, output: Tensor) -> Tensor | None:
            with torch.autocast(output.device.type, enabled=False):
                return act(layer, step, output)

        return call

    with contextlib.ExitStack() as handles:
        handles.callback(unet.register_forward_pre_hook(note).remove)
        for name, module in unet.named_modules():
            if name.endswith(".attn2"):
                handles.callback(module.register_forward_hook(hook(name)).remove)
        yield


def fit(world: World, settings: Mapping[str, Any], target: Target) -> dict[str, Tensor]:
    """Directions and magnitudes of every class at each cross-attention and step, float32 (see `EquiSteer`).

    m_y: mean output of cross-attention over the positions and images of prompts that say class y. s_y is m_y minus the
    mean over classes, at length 1. α_y is the mean over these images of the largest, or of the mean, of ⟨x, s_y⟩ over
    positions.
    """
    device, prompts = world.pipeline.device, spread(world.train, settings["concepts"])
    fitted = {"timesteps": torch.as_tensor(_timesteps(world), device=device)}
    for attribute in (attribute for attribute in ATTRIBUTES if attribute in target):
        said = [[say(prompt, {attribute: name}).text for prompt in prompts] for name in ATTRIBUTES[attribute]]
        means = [observe(world, prompts, texts, lambda layer, step, x: x.mean(1)) for texts in said]
        stacked = {layer: torch.stack([mean[layer] for mean in means], 1) for layer in means[0]}
        directions = {layer: unit(own - own.mean(1, keepdim=True)).to(device).float() for layer, own in stacked.items()}
        magnitudes = []
        for k, texts in enumerate(said):
            own = {layer: direction[:, k] for layer, direction in directions.items()}
            magnitudes.append(observe(world, prompts, texts, along(own, settings["magnitude"])))
        for layer, direction in directions.items():
            fitted[f"{attribute}/directions/{layer}"] = direction
            fitted[f"{attribute}/magnitudes/{layer}"] = (
                torch.stack([own[layer] for own in magnitudes], 1).to(device).float()
            )
    return fitted


def unit(vectors: Tensor) -> Tensor:
    """Vectors (..., D) at length 1; zero stays zero."""
    length = vectors.norm(dim=-1, keepdim=True)
    return torch.where(length > 0, vectors / length, 0.0)


def along(directions: Mapping[str, Tensor], magnitude: str) -> Read:
    """Reads how far an output goes along its layer's and step's direction (S, D): at its `largest`, or the mean."""
    if magnitude == "largest":
        return lambda layer, step, x: (x @ directions[layer][step]).amax(1)
    return lambda layer, step, x: (x @ directions[layer][step]).mean(1)


@torch.no_grad()
def observe(world: World, prompts: Sequence[Prompt], texts: Sequence[str], read: Read) -> dict[str, Tensor]:
    """Means (S, ...), float64 on the CPU, by layer, of what `read` says of an image of each text.

    The noise is that of the prompt, whichever class its text says.
    """
    pipeline, noises = world.pipeline, [stable_seed(world.seed, "equisteer", prompt.id) for prompt in prompts]
    noise, conditioning = initial_noise(pipeline.latent_shape, noises), encode_prompts(pipeline, texts, world.padding)
    sums: dict[str, Tensor] = {}
    seen: dict[str, list[Tensor]] = {}

    def keep(layer: str, step: int, output: Tensor) -> None:
        own = output[-images:].float()  # without the rows of the empty prompt
        seen.setdefault(layer, []).append(read(layer, step, own))

    for rows in torch.arange(len(texts)).split(world.micro_batch):
        images = len(rows)
        with cross_attention(pipeline.unet, range(world.steps), keep):
            index = rows.to(pipeline.device)
            sample(pipeline, noise[rows], conditioning, index, world.steps, world.guidance, images)
        for layer, values in seen.items():  # not before: each copy waits for a GPU
            sums[layer] = torch.stack([value.cpu().double().sum(0) for value in values]) + sums.get(layer, 0)
        seen.clear()
    return {layer: total / len(texts) for layer, total in sums.items()}


def _timesteps(world: World) -> np.ndarray:
    return build_schedule(world.pipeline.scheduler_config, world.steps).timesteps


def apply(world: World, settings: Mapping[str, Any], target: Target, fitted: Mapping[str, Tensor]) -> Intervention:
    """The intervention with fitted directions."""
    return EquiSteer(target, settings, fitted)
