"""Gradients of a loss on generated images with respect to adapters, step by step (eqs. 9-10, adjusted DFT).

With the latents that enter the U-Net held fixed, the final latent is linear in the noise predictions,
z0 = a z_T + sum_i a_i eps_i, so that dL/dtheta = sum_i a_i (deps_i/dtheta)^T v with v = dL/dz0. Each term needs one
U-Net evaluation at a stored latent, whatever the others do: memory does not grow with the number of steps. The
estimators differ in the weight put in the place of a_i:

* adjusted: -k for every step, k the geometric mean of |a_i|. The paper's eq. 10, A_t = 1; a_i is negative for all but
  two late steps, so the sign is.
* released: a_i c_i with the factors of the released code's backward hook.
* unstandardised: a_i; the paper's variant that keeps A_t.
* exact: the true gradient, the paper's naive DFT, by a reverse sweep that also carries dL/dz_i from step to step.
  A damping below 1 scales the part that passes through the U-Net; at 0 the unstandardised gradient is left.

Of the exact chain, only the last steps may be differentiated, the latent that enters them held fixed: the last K
(DRaFT-K, Clark et al. 2023) or those from a random step on (AlignProp, Prabhudesai et al. 2023). DRaFT-LV (Clark et
al.) takes the last step alone and averages over further images made by it: `accumulate_renoised`. Of the other
estimators, a subset of steps may be taken; evenly spaced and unstandardised, that is DRTune (Wu et al. 2024) but for a
common scale.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distalign.diffusion.attention import PromptKeys, prompt_keys
from distalign.diffusion.pipeline import Pipeline
from distalign.diffusion.sampler import Rollout, StepGraph, predict_noise, sample
from distalign.diffusion.schedule import Schedule
from distalign.diffusion.text import TextConditioning
from distalign.errors import UserError

WEIGHTS = ("adjusted", "released", "unstandardised", "exact")


@dataclass(frozen=True)
class GradientSettings:
    """How gradients reach the adapters.

    Attributes:
        weights: one of WEIGHTS.
        damping: in [0, 1], of the exact gradient's part that passes through the U-Net.
        steps: differentiate this many steps, drawn anew at every iteration; None for all.
        choice: of these steps, see `choose_steps`; "random" or "even".
        last: differentiate the exact chain through so many last steps only; None for all.
        truncate: differentiate it from a random step on, drawn anew at every iteration.
        renoise: so many further images of one denoising each, with `last` 1.
        keep_graph: keep the U-Net's graphs from the sampling instead of evaluating it again.
    """

    weights: str = "adjusted"
    damping: float = 1.0
    steps: int | None = None
    keep_graph: bool = False
    choice: str = "random"
    last: int | None = None
    truncate: bool = False
    renoise: int = 0

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], keep_graph: bool) -> "GradientSettings":
        """Settings from a spec's `gradient` entry, `keep_graph` decided.

        Raises:
            UserError: unknown weights, or options that do not go with them.
        """
        weights = spec.get("weights", "adjusted")
        if weights not in WEIGHTS:
            raise UserError(f"gradient.weights: {weights!r} is unknown; choose from {', '.join(WEIGHTS)}")
        if weights == "exact" and spec.get("steps") is not None:
            raise UserError("gradient.steps: the exact gradient needs every step; leave it out or choose other weights")
        for key in ("last", "truncate", "renoise"):
            if weights != "exact" and spec.get(key) is not None:
                raise UserError(f"gradient.{key}: only for weights: exact, not {weights}")
        if spec.get("renoise") is not None and spec.get("last") != 1:
            raise UserError("gradient.renoise: needs last: 1, as its further images pass one step only")
        return cls(
            weights, spec.get("damping", 1.0), spec.get("steps"), keep_graph, spec.get("choice", "random"),
            spec.get("last"), spec.get("truncate") is not None, spec.get("renoise", 0),
        )  # fmt: skip


@dataclass(frozen=True)
class StepChoice:
    """The steps to differentiate at, and the scale of each: one over its chance, so that sums stay unbiased.

    Of the exact chain the steps are the last ones, and nothing is scaled: there it is not a sum over steps.
    """

    steps: tuple[int, ...]
    scales: tuple[float, ...]


def choose_steps(settings: GradientSettings, schedule: Schedule, generator: torch.Generator) -> StepChoice:
    """Draw the steps of a sparse gradient without replacement, and where a truncated chain begins; else all steps.

    random: A step's chance grows with the square root of its weight: so does the size of its part of the unstandardised
    gradient on the mini world's model. Chances that follow the sizes of the parts make the sum vary little.
    even: The m of S steps are S / m apart (rounded down) from a random first one: each has chance m / S.
    truncate: Each step is the first with equal chance.
    """
    wanted = settings.steps
    if wanted is None or wanted >= schedule.steps:
        first = 0
        if settings.truncate:
            first = int(torch.randint(schedule.steps, (), generator=generator))
        elif settings.last is not None:
            first = max(0, schedule.steps - settings.last)
        return StepChoice(tuple(range(first, schedule.steps)), (1.0,) * (schedule.steps - first))
    if settings.choice == "even":
        start = torch.rand((), generator=generator, dtype=torch.float64).item()
        even = np.floor((start + np.arange(wanted)) * (schedule.steps / wanted)).astype(int)
        return StepChoice(tuple(even.tolist()), (schedule.steps / wanted,) * wanted)
    chance = inclusion_probabilities(np.sqrt(np.abs(step_weights(schedule, settings.weights))), wanted)
    certain = np.flatnonzero(chance >= 1)
    uncertain = np.flatnonzero(chance < 1)
    # Systematic sampling: one uniform number, as many equally spaced marks on the line of chances laid end to end.
    marks = torch.rand((), generator=generator, dtype=torch.float64).item() + np.arange(wanted - len(certain))
    drawn = uncertain[np.searchsorted(np.cumsum(chance[uncertain])[:-1], marks, side="right")]
    steps = sorted([*certain.tolist(), *drawn.tolist()])
    return StepChoice(tuple(steps), tuple((1 / chance[steps]).tolist()))


def inclusion_probabilities(sizes: np.ndarray, count: int) -> np.ndarray:
    """Chances (S,) of being among `count` of S, in proportion to positive sizes (S,), none above 1; they sum to count.

    `count` must be below S.
    """
    chance = np.zeros(len(sizes))
    capped = np.zeros(len(sizes), bool)
    while True:
        free = ~capped
        chance[free] = sizes[free] * (count - capped.sum()) / sizes[free].sum()
        over = free & (chance >= 1)
        if not over.any():
            return np.where(capped, 1.0, chance)
        capped |= over


def step_weights(schedule: Schedule, weights: str) -> np.ndarray:
    """The (S,) weights of an estimator other than the exact one."""
    _, exact = schedule.linear_coefficients()
    if weights == "adjusted":
        return np.full(schedule.steps, -np.exp(np.log(np.abs(exact)).mean()))
    if weights == "released":
        return exact * schedule.released_factors()
    return exact


def accumulate_gradients(
    pipeline: Pipeline,
    rollout: Rollout,
    cotangent: Tensor,
    leaf: TextConditioning,
    prompt_index: Tensor,
    guidance: float,
    settings: GradientSettings,
    choice: StepChoice,
    micro_batch: int,
) -> None:
    """Add dL/dtheta to the U-Net adapter's `.grad`, and dL/d(text embeddings) to that of `leaf`.

    `rollout` is a sampling of B images with `leaf`, either with its latents kept or with the graphs of the chosen
    steps (of the exact chain: the last ones), and `cotangent` (B, C, h, w) is v = dL/dz0. `leaf.embeddings` then go
    through the text encoder once, by `TextConditioning.backward`. At most `micro_batch` U-Net evaluations are in memory
    beside the graphs kept before.
    """
    keys = rollout.keys if rollout.graphs else prompt_keys(pipeline, leaf)
    products = _Products(pipeline, rollout, leaf, prompt_index.to(pipeline.device), guidance, keys)
    if settings.weights == "exact":
        if rollout.graphs:
            _sweep_kept(rollout, cotangent, settings.damping, choice.steps[0])
        else:
            products.sweep(cotangent, settings.damping, micro_batch, choice.steps[0])
    else:
        weights = step_weights(rollout.schedule, settings.weights)
        weights[list(choice.steps)] *= choice.scales
        if rollout.graphs:
            for graph in rollout.graphs:
                graph.prediction.backward(weights[graph.step] * cotangent[graph.start : graph.stop])
        else:
            products.weighted(cotangent, weights, choice.steps, micro_batch)
    for start, graph in {graph.start: graph for graph in rollout.graphs}.items():
        if graph.states.grad is not None:
            leaf.collect(products.prompt_index[start : graph.stop], graph.states.grad)
    if keys is not None:
        keys.backward()
    rollout.graphs.clear()


def accumulate_renoised(
    pipeline: Pipeline,
    rollout: Rollout,
    noise: Tensor,
    cotangent: Callable[[Tensor], Tensor],
    leaf: TextConditioning,
    prompt_index: Tensor,
    guidance: float,
    settings: GradientSettings,
    micro_batch: int,
) -> None:
    """Add what `accumulate_gradients` does for further images made from a rollout's (DRaFT-LV, Clark et al. 2023).

    x0 = (z - sigma eps(z)) / alpha at z = alpha z0 + sigma noise, with alpha and sigma of the sampler's last timestep;
    z0 (B, C, h, w) of the rollout is held fixed, and `noise` is standard normal of its shape. `cotangent` gives dL/dx0.
    """
    noised = rollout.schedule.noised(rollout.z0, noise.to(rollout.z0))
    keep = settings.keep_graph
    again = sample(
        pipeline, noised, leaf, prompt_index, rollout.schedule.last_denoising(), guidance, micro_batch,
        keep=not keep, graph_steps=(0,) if keep else (), through_latents=True,
    )  # fmt: skip
    only = StepChoice((0,), (1.0,))
    pull = cotangent(again.z0)
    accumulate_gradients(pipeline, again, pull, leaf, prompt_index, guidance, settings, only, micro_batch)


def latent_gradient(
    pipeline: Pipeline,
    rollout: Rollout,
    cotangent: Tensor,
    conditioning: TextConditioning,
    prompt_index: Tensor,
    guidance: float,
    micro_batch: int,
) -> Tensor:
    """dL/dz_T (B, C, h, w), exact, of a sampling by a frozen model, from v = dL/dz0 (B, C, h, w).

    `rollout` must have its latents. One U-Net evaluation per step and image; at most `micro_batch` are in memory.
    """
    with torch.enable_grad():
        keys = prompt_keys(pipeline, conditioning)
        products = _Products(pipeline, rollout, conditioning, prompt_index.to(pipeline.device), guidance, keys)
        return products.sweep(cotangent, 1.0, micro_batch)


@dataclass
class _Products:
    """Vector-Jacobian products of the U-Net at stored latents, evaluated anew."""

    pipeline: Pipeline
    rollout: Rollout
    leaf: TextConditioning
    prompt_index: Tensor
    guidance: float
    keys: PromptKeys | None

    def __post_init__(self) -> None:
        # Once: each copy from the CPU waits for a GPU.
        self.timesteps = torch.as_tensor(self.rollout.schedule.timesteps, device=self.pipeline.device)

    def weighted(self, cotangent: Tensor, weights: np.ndarray, steps: tuple[int, ...], micro_batch: int) -> None:
        """Sum over (step, image) pairs of weights[step] times the product; any pairs may share a micro-batch."""
        assert self.rollout.latents is not None
        device = cotangent.device
        images = len(cotangent)
        pair_step = torch.tensor(steps, device=device).repeat_interleave(images)
        pair_image = torch.arange(images, device=device).repeat(len(steps))
        scale = torch.as_tensor(weights, device=device, dtype=cotangent.dtype)
        for step, image in zip(pair_step.split(micro_batch), pair_image.split(micro_batch), strict=True):
            prediction = self._predict(self.rollout.latents[step, image], step, image)
            prediction.backward(scale[step].view(-1, 1, 1, 1) * cotangent[image])

    def sweep(self, cotangent: Tensor, damping: float, micro_batch: int, first: int = 0) -> Tensor:
        """The exact chain from step `first` on, for each micro-batch of images by itself; the adjoint there."""
        adjoints = []
        for image in torch.arange(len(cotangent), device=cotangent.device).split(micro_batch):
            vjp = functools.partial(self._vjp, image)
            adjoints.append(adjoint_sweep(self.rollout.schedule, cotangent[image], damping, vjp, first))
        return torch.cat(adjoints)

    def _vjp(self, image: Tensor, i: int, gradient: Tensor) -> Tensor:
        assert self.rollout.latents is not None
        latents = self.rollout.latents[i, image].requires_grad_()
        self._predict(latents, torch.full_like(image, i), image).backward(gradient)
        assert latents.grad is not None
        return latents.grad

    def _predict(self, latents: Tensor, step: Tensor, image: Tensor) -> Tensor:
        states, mask = self.leaf.batch(self.prompt_index[image])
        kept = None if self.keys is None else self.keys.batch(self.prompt_index[image])
        return predict_noise(self.pipeline, latents, self.timesteps[step], states, mask, self.guidance, kept)


def _sweep_kept(rollout: Rollout, cotangent: Tensor, damping: float, first: int) -> None:
    """The exact chain over graphs kept from the sampling, which must be those of all steps from `first` on."""
    parts: dict[tuple[int, int], dict[int, StepGraph]] = {}
    for graph in rollout.graphs:
        parts.setdefault((graph.start, graph.stop), {})[graph.step] = graph

    for (start, stop), graphs in parts.items():
        adjoint_sweep(rollout.schedule, cotangent[start:stop], damping, functools.partial(_kept_vjp, graphs), first)


def _kept_vjp(graphs: Mapping[int, StepGraph], i: int, gradient: Tensor) -> Tensor:
    graphs[i].prediction.backward(gradient)
    latents = graphs[i].latents
    assert latents.grad is not None
    return latents.grad


def adjoint_sweep(
    schedule: Schedule, cotangent: Tensor, damping: float, vjp: Callable[[int, Tensor], Tensor], first: int = 0
) -> Tensor:
    """Reverse-mode differentiation of the two-step recursion, from the last step to `first`; the adjoint of z_first.

    `vjp(i, g)` accumulates g^T deps_i/dtheta where it belongs and returns g^T deps_i/dz_i. The adjoint of z_{i+1} is
    `adjoint`; that of m_i gets a part from z_{i+1} and, the solver having two steps, one from z_{i+2}: `carried`. What
    came before `first`, z_first and m_{first - 1}, counts as fixed.
    """
    adjoint, carried = cotangent, torch.zeros_like(cotangent)
    for i in reversed(range(first, schedule.steps)):
        data = schedule.current[i] * adjoint + carried
        through_network = vjp(i, schedule.data_output[i] * data)
        carried = schedule.previous[i] * adjoint
        adjoint = schedule.latent[i] * adjoint + schedule.data_latent[i] * data + damping * through_network
    return adjoint
