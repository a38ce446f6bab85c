"""InterpretDiffusion: what the hook adds and where, and what training minimises."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distalign.diffusion.intervention import Batch, Intervention, Sampling, render
from distalign.diffusion.pipeline import load_pipeline
from distalign.diffusion.sampler import evaluate_unet
from distalign.diffusion.text import encode_prompts
from distalign.methods.assignment import assign, cells
from distalign.methods.interpret_diffusion import apply, batches, fit, learn, pictures, predict
from distalign.methods.world import World

from .conftest import GUIDANCE, STEPS, UNIFORM, Images, settings_of

GENDER, BOTH = {"gender": UNIFORM["gender"]}, {"gender": UNIFORM["gender"], "race": UNIFORM["race"]}
SHAPE = (16, 2, 2)  # of the tiny U-Net's middle


def vectors(target: Any, size: float = 3.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"{a}/{name}": size * torch.randn(SHAPE, generator=generator) for a in target for name in UNIFORM[a]}


def neutral(world: World) -> Any:
    return encode_prompts(world.pipeline, ["a photo of a person"], world.padding)


def middle(world: World, sampling: Sampling | None, intervention: Intervention, rows: int) -> Tensor:
    """The middle block's output for `rows` random latents, the hooks on (None: off)."""
    outputs: list[Tensor] = []
    states = neutral(world).embeddings.expand(rows, -1, -1)
    latents = torch.randn(rows, *world.pipeline.latent_shape, generator=torch.Generator().manual_seed(1))

    def run() -> None:
        handle = world.pipeline.unet.mid_block.register_forward_hook(lambda m, a, output: outputs.append(output))
        with torch.no_grad():
            evaluate_unet(world.pipeline, latents, torch.tensor(500), states, None)
        handle.remove()

    if sampling is None:
        run()
    else:
        with intervention.activations(sampling):
            run()
    return outputs[0]


def sampling_of(world: World, batch: Batch) -> Sampling:
    index = torch.zeros(len(batch.prompts), dtype=torch.long)
    return Sampling(world.pipeline, batch, neutral(world), index, index[:0], STEPS, GUIDANCE)


@pytest.mark.parametrize("rows", [16, 8])  # with guidance, and at guidance 1
def test_each_image_gets_the_sum_of_its_vectors(world: World, batch: Batch, rows: int) -> None:
    learned = vectors(BOTH)
    intervention = apply(world, settings_of("interpret_diffusion", scale=2.0), BOTH, learned)
    added = middle(world, sampling_of(world, batch), intervention, rows) - middle(world, None, intervention, rows)
    assert (added[: rows - 8] == 0).all()
    for row, cell in enumerate(assign(BOTH, batch, "quota")):
        classes = cells(BOTH)[cell]
        expected = 2 * (learned[f"gender/{classes['gender']}"] + learned[f"race/{classes['race']}"])
        torch.testing.assert_close(added[rows - 8 + row], expected, atol=1e-5, rtol=0)


def test_hooks_are_gone_afterwards_also_after_an_error(world: World, batch: Batch) -> None:
    intervention = apply(world, settings_of("interpret_diffusion"), GENDER, vectors(GENDER))
    with pytest.raises(RuntimeError, match="half"), intervention.activations(sampling_of(world, batch)):
        assert world.pipeline.unet.mid_block._forward_hooks
        raise RuntimeError("half way")
    assert not world.pipeline.unet.mid_block._forward_hooks


@pytest.mark.parametrize(("padding", "guidance"), [("longest", GUIDANCE), ("max_length", GUIDANCE), ("longest", 1.0)])
def test_images_do_not_depend_on_the_batch(
    world: World, batch: Batch, both_ways: Callable[[World, Intervention], Images], padding: Any, guidance: float
) -> None:
    world.padding, world.guidance, world.steps = padding, guidance, 2
    intervention = apply(world, settings_of("interpret_diffusion"), BOTH, vectors(BOTH))
    images = both_ways(world, intervention)
    torch.testing.assert_close(images.together, images.alone, atol=2e-5, rtol=0)
    plain = render(world.pipeline, Intervention(), batch, list(range(8)), 2, guidance, padding)
    assert (images.together - plain).abs().max() > 1e-3


def test_training_lowers_its_own_loss(world: World) -> None:
    settings = settings_of("interpret_diffusion", images=4, steps=25, batch_size=4, learning_rate=0.3)
    clean = pictures(world, "a photo of a female person", 4)
    assert clean.shape == (4, *world.pipeline.latent_shape)

    def loss(vector: Tensor) -> float:
        drawn = batches(world.pipeline, clean, 10, 4, seed=99)  # others than those of the training
        with torch.no_grad():
            errors = [((predict(world.pipeline, vector, z, t, neutral(world)) - e) ** 2).mean() for z, t, e in drawn]
        return float(torch.stack(errors).mean())

    vector = learn(world.pipeline, clean, neutral(world), settings, seed=0)
    assert loss(vector) < 0.998 * loss(torch.zeros(SHAPE))  # a random model's middle does not do much
    assert loss(-vector) > loss(torch.zeros(SHAPE))
    assert not vector.requires_grad
    assert all(parameter.grad is None for parameter in world.pipeline.unet.parameters())


def test_one_step_goes_against_the_gradient_of_the_mean_error(world: World) -> None:
    clean = pictures(world, "a photo of a female person", 4)
    settings = settings_of("interpret_diffusion", steps=1, batch_size=4)
    vector = torch.zeros(SHAPE, requires_grad=True)
    ((noisy, time, noise),) = batches(world.pipeline, clean, 1, 4, seed=0)
    torch.nn.functional.mse_loss(predict(world.pipeline, vector, noisy, time, neutral(world)), noise).backward()
    assert vector.grad is not None
    expected = -0.1 * vector.grad / (vector.grad.abs() + 1e-8)  # Adam's first step
    learned = learn(world.pipeline, clean, neutral(world), settings, seed=0)
    torch.testing.assert_close(learned, expected, atol=1e-3, rtol=0)


def test_noisy_latents_and_targets_follow_the_schedule(world: World) -> None:
    clean = torch.randn(3, *world.pipeline.latent_shape)
    config = world.pipeline.scheduler_config
    betas = torch.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)
    seen = 0
    for noisy, time, noise in batches(world.pipeline, clean, 3, 2, seed=0):
        signal = kept[time].view(-1, 1, 1, 1).float()
        estimate = (noisy - (1 - signal).sqrt() * noise) / signal.sqrt()
        distances = (estimate[:, None] - clean).abs().flatten(2).amax(2)
        assert (distances.min(1).values < 1e-2).all()
        seen += len(noisy)
    assert seen == 6

    config["prediction_type"] = "v_prediction"
    noisy, time, velocity = next(batches(world.pipeline, clean, 3, 2, seed=0))
    signal = kept[time].view(-1, 1, 1, 1).float()
    estimate = signal.sqrt() * noisy - (1 - signal).sqrt() * velocity
    assert ((estimate[:, None] - clean).abs().flatten(2).amax(2).min(1).values < 1e-4).all()


def test_every_picture_is_seen_once_in_an_epoch(world: World) -> None:
    clean = torch.arange(4.0).view(4, 1, 1, 1).expand(4, *world.pipeline.latent_shape) * 100
    world.pipeline.scheduler_config["trained_betas"] = [1e-9] * 1000  # hardly any noise
    seen = torch.cat([noisy.mean((1, 2, 3)) for noisy, _, _ in batches(world.pipeline, clean, 4, 2, seed=0)])
    assert sorted((seen[:4] / 100).round().tolist()) == [0, 1, 2, 3]
    assert sorted((seen[4:] / 100).round().tolist()) == [0, 1, 2, 3]


def test_without_a_step_the_images_are_the_originals(world: World, batch: Batch) -> None:
    settings = settings_of("interpret_diffusion", images=2) | {"steps": 0}
    learned = fit(world, settings, BOTH)
    assert set(learned) == set(vectors(BOTH))
    assert {tuple(vector.shape) for vector in learned.values()} == {SHAPE}
    assert not any(vector.any() for vector in learned.values())
    arguments = (batch, list(range(8)), STEPS, GUIDANCE, world.padding)
    changed = render(world.pipeline, apply(world, settings, BOTH, learned), *arguments)
    assert torch.equal(changed, render(world.pipeline, Intervention(), *arguments))


@pytest.mark.parametrize("autocast", [False, True])
def test_lower_precision_is_kept(world: World, batch: Batch, tiny_backbone: Path, autocast: bool) -> None:
    dtype = torch.float32 if autocast else torch.bfloat16
    world.pipeline = load_pipeline(tiny_backbone, dtype=dtype, autocast=autocast)
    settings = settings_of("interpret_diffusion", images=2, steps=2, batch_size=2)
    learned = fit(world, settings, GENDER)
    assert {vector.dtype for vector in learned.values()} == {torch.float32}
    assert all(vector.abs().min() > 0 for vector in learned.values())
    intervention = apply(world, settings, GENDER, learned)
    images = render(world.pipeline, intervention, batch, list(range(8)), STEPS, GUIDANCE, world.padding)
    assert images.isfinite().all()


def test_a_fit_repeats_itself_and_tells_classes_apart(world: World) -> None:
    settings = settings_of("interpret_diffusion", images=2, steps=2, batch_size=2)
    first, second = fit(world, settings, GENDER), fit(world, settings, GENDER)
    assert set(first) == {"gender/female", "gender/male"}
    for name in first:
        assert torch.equal(first[name], second[name])
    assert not torch.equal(first["gender/female"], first["gender/male"])
