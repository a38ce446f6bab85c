from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from distalign.alignment.gradient import (
    GradientSettings,
    StepChoice,
    accumulate_gradients,
    accumulate_renoised,
    choose_steps,
    inclusion_probabilities,
    latent_gradient,
    step_weights,
)
from distalign.diffusion.adapters import Adapter, attach_adapter
from distalign.diffusion.noise import initial_noise
from distalign.diffusion.pipeline import Pipeline, load_pipeline
from distalign.diffusion.sampler import advance, predict_noise, sample
from distalign.diffusion.schedule import build_schedule
from distalign.diffusion.text import TextConditioning, encode_prompts
from distalign.errors import UserError
from helpers.tiny import PROMPTS

STEPS, GUIDANCE = 5, 3.0
TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
INDEX = torch.tensor([0, 1, 1])
PARTS = [["text_encoder"], ["unet"], ["text_encoder", "unet"], ["prompt_prefix"]]


def adapted(path: Path, train: list[str]) -> Adapter:
    pipeline = load_pipeline(path, dtype=torch.float64)
    adapter = attach_adapter(pipeline, train, rank=2, prefix_tokens=2, seed=1)
    for i, parameter in enumerate(adapter.parameters.values()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        parameter.data = parameter.data.double() + 0.2 * noise
    return adapter


def gradients(adapter: Adapter) -> Tensor:
    parts = [p.grad.flatten() for p in adapter.parameters.values() if p.grad is not None]
    assert len(parts) == len(adapter.parameters)
    for parameter in adapter.parameters.values():
        parameter.grad = None
    return torch.cat(parts)


def start(pipeline: Pipeline) -> Tensor:
    return initial_noise(pipeline.latent_shape, [1, 2, 3]).double()


def loss(z0: Tensor) -> Tensor:
    return (z0.sin() * torch.linspace(-1, 1, z0[0].numel(), dtype=z0.dtype).view_as(z0[0])).sum()


def autograd_through_the_chain(
    adapter: Adapter, feed: Callable[[Tensor], Tensor], scale: np.ndarray, first: int = 0
) -> Tensor:
    """Plain backpropagation through all steps; `feed` is what the U-Net sees of z, `scale` a hook on each eps_i.

    The steps before `first` are as if without gradient.
    """
    pipeline = adapter.pipeline
    schedule = build_schedule(pipeline.scheduler_config, STEPS)
    conditioning = encode_prompts(pipeline, PROMPTS)
    states, mask = conditioning.batch(INDEX)
    z, before = start(pipeline), None
    for i, t in enumerate(torch.as_tensor(schedule.timesteps)):
        eps = predict_noise(pipeline, feed(z), t, states, mask, GUIDANCE)
        hooked = eps.detach() + scale[i] * (eps - eps.detach())
        z, before = advance(schedule, i, z, hooked, before)
        if i < first:
            z, before = z.detach(), before.detach()
    loss(z).backward()
    return gradients(adapter)


def by_products(
    adapter: Adapter, settings: GradientSettings, choice: StepChoice | None = None, micro_batch: int = 2
) -> Tensor:
    pipeline = adapter.pipeline
    choice = choice or StepChoice(tuple(range(STEPS)), (1.0,) * STEPS)
    conditioning: TextConditioning = encode_prompts(pipeline, PROMPTS)
    leaf = conditioning.leaf()
    graph_steps = choice.steps if settings.keep_graph else ()
    rollout = sample(
        pipeline,
        start(pipeline),
        leaf,
        INDEX,
        STEPS,
        GUIDANCE,
        2,
        keep=not settings.keep_graph,
        graph_steps=graph_steps,
        through_latents=settings.weights == "exact",
    )
    z0 = rollout.z0.requires_grad_()
    (cotangent,) = torch.autograd.grad(loss(z0), z0)
    accumulate_gradients(pipeline, rollout, cotangent, leaf, INDEX, GUIDANCE, settings, choice, micro_batch)
    conditioning.backward(leaf)
    return gradients(adapter)


def relative_error(value: Tensor, reference: Tensor) -> float:
    return ((value - reference).norm() / reference.norm()).item()


@pytest.mark.parametrize("train", PARTS, ids="+".join)
@pytest.mark.parametrize("keep_graph", [False, True], ids=["flat", "keep_graph"])
@pytest.mark.parametrize("weights", ["adjusted", "released", "unstandardised"])
def test_weighted_estimators_against_autograd(
    tiny_backbone: Path, train: list[str], keep_graph: bool, weights: str
) -> None:
    adapter = adapted(tiny_backbone, train)
    schedule = build_schedule(adapter.pipeline.scheduler_config, STEPS)
    _, exact = schedule.linear_coefficients()
    hooks = {
        "adjusted": -np.exp(np.log(np.abs(exact)).mean()) / exact,
        "released": schedule.released_factors(),
        "unstandardised": np.ones(STEPS),
    }
    reference = autograd_through_the_chain(adapter, Tensor.detach, hooks[weights])
    for micro_batch in (2, 7):
        value = by_products(adapter, GradientSettings(weights, keep_graph=keep_graph), micro_batch=micro_batch)
        assert relative_error(value, reference) <= 1e-8


@pytest.mark.parametrize("train", PARTS, ids="+".join)
@pytest.mark.parametrize("keep_graph", [False, True], ids=["flat", "keep_graph"])
@pytest.mark.parametrize("damping", [1.0, 0.6])
def test_exact_chain_against_autograd(tiny_backbone: Path, train: list[str], keep_graph: bool, damping: float) -> None:
    adapter = adapted(tiny_backbone, train)

    def feed(z: Tensor) -> Tensor:
        return damping * z + (1 - damping) * z.detach()

    reference = autograd_through_the_chain(adapter, feed, np.ones(STEPS))
    value = by_products(adapter, GradientSettings("exact", damping=damping, keep_graph=keep_graph))
    assert relative_error(value, reference) <= 1e-8


def test_damping_zero_is_the_unstandardised_gradient(tiny_backbone: Path) -> None:
    adapter = adapted(tiny_backbone, ["text_encoder"])
    swept = by_products(adapter, GradientSettings("exact", damping=0.0))
    assert relative_error(swept, by_products(adapter, GradientSettings("unstandardised"))) <= 1e-12
    assert relative_error(swept, by_products(adapter, GradientSettings("exact", damping=1.0))) > 1e-3


@pytest.mark.parametrize("keep_graph", [False, True], ids=["flat", "keep_graph"])
@pytest.mark.parametrize("last", [1, 2, 3])
def test_the_last_steps_of_the_exact_chain_against_autograd(tiny_backbone: Path, keep_graph: bool, last: int) -> None:
    adapter = adapted(tiny_backbone, ["text_encoder", "unet"])
    settings = GradientSettings("exact", keep_graph=keep_graph, last=last)
    schedule = build_schedule(adapter.pipeline.scheduler_config, STEPS)
    choice = choose_steps(settings, schedule, torch.Generator())
    assert choice.steps == tuple(range(STEPS - last, STEPS))
    reference = autograd_through_the_chain(adapter, lambda z: z, np.ones(STEPS), first=STEPS - last)
    for micro_batch in (2, 7):
        assert relative_error(by_products(adapter, settings, choice, micro_batch), reference) <= 1e-8
    if last == 2:
        damped = autograd_through_the_chain(adapter, lambda z: 0.6 * z + 0.4 * z.detach(), np.ones(STEPS), 3)
        settings = GradientSettings("exact", 0.6, keep_graph=keep_graph, last=2)
        assert relative_error(by_products(adapter, settings, choice), damped) <= 1e-8
        assert relative_error(damped, reference) > 1e-4


def test_a_truncated_chain_begins_at_any_step_with_equal_chance() -> None:
    schedule = build_schedule(TABLE, 6)
    generator = torch.Generator().manual_seed(0)
    settings = GradientSettings("exact", truncate=True)
    drawn = [choose_steps(settings, schedule, generator) for _ in range(3000)]
    assert all(choice.steps == tuple(range(choice.steps[0], 6)) for choice in drawn)
    assert all(set(choice.scales) == {1.0} for choice in drawn)
    counts = np.bincount([choice.steps[0] for choice in drawn], minlength=6)
    assert np.all(np.abs(counts / 3000 - 1 / 6) < 0.03)
    assert choose_steps(settings, schedule, torch.Generator().manual_seed(0)) == drawn[0]


@pytest.mark.parametrize("train", PARTS, ids="+".join)
@pytest.mark.parametrize("keep_graph", [False, True], ids=["flat", "keep_graph"])
def test_renoised_images_against_autograd(tiny_backbone: Path, train: list[str], keep_graph: bool) -> None:
    adapter = adapted(tiny_backbone, train)
    pipeline = adapter.pipeline
    schedule = build_schedule(pipeline.scheduler_config, STEPS)
    noise = initial_noise(pipeline.latent_shape, [7, 8, 9])
    settings = GradientSettings("exact", keep_graph=keep_graph, last=1, renoise=1)
    conditioning = encode_prompts(pipeline, PROMPTS)
    states, mask = conditioning.batch(INDEX)
    with torch.no_grad():
        z0 = sample(pipeline, start(pipeline), conditioning, INDEX, STEPS, GUIDANCE, 3).z0
    t = int(schedule.timesteps[-1])
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alpha, sigma = (1 - betas).cumprod(0)[t].sqrt(), (1 - (1 - betas).cumprod(0)[t]).sqrt()
    z = alpha * z0 + sigma * noise
    loss((z - sigma * predict_noise(pipeline, z, torch.tensor(t), states, mask, GUIDANCE)) / alpha).backward()
    reference = gradients(adapter)

    def pull(x0: Tensor) -> Tensor:
        leaf = x0.detach().requires_grad_()
        return torch.autograd.grad(loss(leaf), leaf)[0]

    for micro_batch in (2, 7):
        conditioning = encode_prompts(pipeline, PROMPTS)
        leaf = conditioning.leaf()
        rollout = sample(pipeline, start(pipeline), leaf, INDEX, STEPS, GUIDANCE, 3)
        accumulate_renoised(pipeline, rollout, noise, pull, leaf, INDEX, GUIDANCE, settings, micro_batch)
        conditioning.backward(leaf)
        assert relative_error(gradients(adapter), reference) <= 1e-5  # the solver's table is in float32


def test_the_gradient_of_the_first_latents_against_autograd(tiny_backbone: Path) -> None:
    pipeline = load_pipeline(tiny_backbone, dtype=torch.float64)
    schedule = build_schedule(pipeline.scheduler_config, STEPS)
    conditioning = encode_prompts(pipeline, PROMPTS)
    states, mask = conditioning.batch(INDEX)
    first = start(pipeline).requires_grad_()
    z, before = first, None
    for i, t in enumerate(torch.as_tensor(schedule.timesteps)):
        z, before = advance(schedule, i, z, predict_noise(pipeline, z, t, states, mask, GUIDANCE), before)
    (reference,) = torch.autograd.grad(loss(z), first)
    with torch.no_grad():
        rollout = sample(pipeline, start(pipeline), conditioning, INDEX, STEPS, GUIDANCE, 3, keep=True)
    z0 = rollout.z0.requires_grad_()
    (cotangent,) = torch.autograd.grad(loss(z0), z0)
    with torch.no_grad():
        value = latent_gradient(pipeline, rollout, cotangent, conditioning, INDEX, GUIDANCE, 2)
    assert relative_error(value, reference) <= 1e-8


@pytest.mark.parametrize("steps", [1, 3, 5, 7])
def test_even_steps_are_spaced_evenly_and_have_equal_chances(steps: int) -> None:
    schedule = build_schedule(TABLE, 12)
    settings = GradientSettings("unstandardised", steps=steps, choice="even")
    generator = torch.Generator().manual_seed(0)
    drawn = [choose_steps(settings, schedule, generator) for _ in range(3000)]
    assert all(len(set(choice.steps)) == steps and set(choice.scales) == {12 / steps} for choice in drawn)
    gaps = {gap for choice in drawn for gap in np.diff(choice.steps)}
    assert gaps <= {12 // steps, -(-12 // steps)}
    counts = np.bincount([step for choice in drawn for step in choice.steps], minlength=12)
    assert len(counts) == 12 and np.all(np.abs(counts / 3000 - steps / 12) < 0.04)


@pytest.mark.parametrize("choice_of_steps", ["random", "even"])
@pytest.mark.parametrize("keep_graph", [False, True], ids=["flat", "keep_graph"])
@pytest.mark.parametrize("weights", ["adjusted", "released", "unstandardised"])
def test_sparse_gradient_is_unbiased(tiny_backbone: Path, keep_graph: bool, weights: str, choice_of_steps: str) -> None:
    adapter = adapted(tiny_backbone, ["text_encoder", "unet"])
    settings = GradientSettings(weights, steps=2, keep_graph=keep_graph, choice=choice_of_steps)
    schedule = build_schedule(adapter.pipeline.scheduler_config, STEPS)
    generator = torch.Generator().manual_seed(0)
    drawn = Counter(choose_steps(settings, schedule, generator) for _ in range(20000))
    values = [by_products(adapter, settings, choice) * (count / 20000) for choice, count in drawn.items()]
    whole = by_products(adapter, GradientSettings(weights, keep_graph=keep_graph))
    assert relative_error(torch.stack(values).sum(0), whole) <= 0.02


def test_steps_are_drawn_by_their_chances_and_repeatably() -> None:
    schedule = build_schedule(TABLE, 12)
    settings = GradientSettings("unstandardised", steps=4)
    generator = torch.Generator().manual_seed(0)
    drawn = [choose_steps(settings, schedule, generator) for _ in range(4000)]
    assert all(len(set(choice.steps)) == 4 for choice in drawn)
    chance = inclusion_probabilities(np.sqrt(np.abs(schedule.linear_coefficients()[1])), 4)
    counts = np.bincount([step for choice in drawn for step in choice.steps], minlength=12)
    assert np.all(np.abs(counts / 4000 - chance) < 0.04)
    assert all(np.allclose(choice.scales, 1 / chance[list(choice.steps)]) for choice in drawn)
    assert choose_steps(settings, schedule, torch.Generator().manual_seed(0)) == drawn[0]


def test_equal_weights_are_drawn_with_equal_chances() -> None:
    schedule = build_schedule(TABLE, 12)
    generator = torch.Generator().manual_seed(0)
    drawn = [choose_steps(GradientSettings("adjusted", steps=3), schedule, generator) for _ in range(2000)]
    assert all(np.allclose(choice.scales, 4) for choice in drawn)
    assert choose_steps(GradientSettings(steps=12), schedule, generator) == StepChoice(tuple(range(12)), (1.0,) * 12)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_chances_sum_to_the_count_and_none_is_above_one(count: int) -> None:
    sizes = np.array([9.0, 5.0, 1.0, 0.5, 0.5])
    chance = inclusion_probabilities(sizes, count)
    assert chance.sum() == pytest.approx(count)
    assert chance.max() <= 1
    below = chance < 1
    assert np.ptp(chance[below] / sizes[below]) < 1e-12
    assert chance[~below].min(initial=1) == 1


def test_adjusted_weights_are_constant_and_negative() -> None:
    schedule = build_schedule(TABLE, 21)
    weights = step_weights(schedule, "adjusted")
    assert np.ptp(weights) == 0
    assert weights[0] < 0
    assert np.log(-weights).sum() == pytest.approx(np.log(np.abs(schedule.linear_coefficients()[1])).sum())


def test_settings_say_what_is_wrong() -> None:
    with pytest.raises(UserError, match="'naive' is unknown"):
        GradientSettings.from_spec({"weights": "naive"}, False)
    with pytest.raises(UserError, match="needs every step"):
        GradientSettings.from_spec({"weights": "exact", "steps": 4}, False)
    with pytest.raises(UserError, match="last: only for weights: exact"):
        GradientSettings.from_spec({"weights": "adjusted", "last": 4}, False)
    with pytest.raises(UserError, match="renoise: needs last: 1"):
        GradientSettings.from_spec({"weights": "exact", "last": 2, "renoise": 2}, False)


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        ({"weights": "exact", "last": 1, "renoise": 2}, GradientSettings("exact", last=1, renoise=2)),
        ({"weights": "exact", "truncate": "random"}, GradientSettings("exact", truncate=True)),
        (
            {"weights": "unstandardised", "steps": 3, "choice": "even"},
            GradientSettings("unstandardised", steps=3, choice="even"),
        ),
        ({"weights": "released", "steps": 3}, GradientSettings("released", steps=3, choice="random")),
    ],
)
def test_settings_of_a_spec(spec: dict[str, object], settings: GradientSettings) -> None:
    assert GradientSettings.from_spec(spec, False) == settings
