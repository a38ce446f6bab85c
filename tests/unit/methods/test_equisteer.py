"""EquiSteer: what projection, class and length are after a step, and what fitting finds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from distalign.diffusion.intervention import Batch, Intervention, Sampling, render
from distalign.diffusion.noise import initial_noise
from distalign.diffusion.pipeline import load_pipeline
from distalign.diffusion.sampler import evaluate_unet, sample
from distalign.diffusion.schedule import build_schedule
from distalign.diffusion.text import encode_prompts
from distalign.methods.assignment import assign, cells
from distalign.methods.equisteer import apply, basis, exchange, fit, nearest, says, unit, with_norm_of
from distalign.methods.world import World
from distalign.prompts.prompt_set import Prompt
from distalign.store.seeds import stable_seed

from .conftest import GUIDANCE, STEPS, UNIFORM, Images, settings_of

GENDER, BOTH = {"gender": UNIFORM["gender"]}, {"gender": UNIFORM["gender"], "race": UNIFORM["race"]}
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2"


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def contrasts(count: int, size: int = 16) -> Tensor:
    """Unit directions (count, size) of class means minus their mean."""
    means = random(count, size)
    return unit(means - means.mean(0))


@pytest.mark.parametrize("count", [2, 4])
def test_components_become_those_of_the_drawn_class(count: int) -> None:
    directions, x = contrasts(count), random(5, 7, 16, seed=1)
    span = basis(directions).float()
    assert span.shape == (count - 1, 16)
    torch.testing.assert_close(span @ span.T, torch.eye(count - 1))
    shift = 0.7 * directions[1]
    steered = exchange(x, span, shift)
    expected = (directions @ shift).expand(5, 7, -1)
    torch.testing.assert_close(steered @ directions.T, expected, atol=1e-5, rtol=0)
    across = torch.eye(16) - span.T @ span  # nothing else changes
    torch.testing.assert_close(steered @ across, x @ across, atol=1e-5, rtol=0)


def test_a_span_of_fewer_dimensions_takes_nothing_else_out() -> None:
    line = torch.stack([random(16), -random(16), torch.zeros(16)])
    span = basis(unit(line)).float()
    torch.testing.assert_close(span[0].abs(), unit(line)[0].abs(), atol=1e-6, rtol=0)
    assert not span[1].any()
    assert not basis(torch.zeros(3, 16)).any()


def test_lengths_are_kept() -> None:
    before, after = random(4, 16), random(4, 16, seed=1)
    after[2] = 0
    result = with_norm_of(before, after)
    torch.testing.assert_close(result.norm(dim=-1)[[0, 1, 3]], before.norm(dim=-1)[[0, 1, 3]])
    torch.testing.assert_close(unit(result[0]), unit(after[0]))
    assert not result[2].any()
    assert torch.equal(with_norm_of(before, before), before)


def sampling_of(world: World, batch: Batch) -> Sampling:
    index = torch.zeros(len(batch.prompts), dtype=torch.long)
    conditioning = encode_prompts(world.pipeline, [batch.prompts[0].text], world.padding)
    return Sampling(world.pipeline, batch, conditioning, index, index[:0], STEPS, GUIDANCE)


def first_layer(world: World) -> Any:
    """The first cross-attention: what goes into it does not depend on the others'."""
    name, module = next(it for it in world.pipeline.unet.named_modules() if it[0].endswith("attn2"))
    return name, module


def first_output(world: World, rows: int, times: Tensor) -> Tensor:
    """Of the first layer at the last of so many steps."""
    outputs: list[Tensor] = []
    handle = first_layer(world)[1].register_forward_hook(lambda m, a, output: outputs.append(output))
    states = encode_prompts(world.pipeline, ["a photo of a cook"], "longest").embeddings.expand(rows, -1, -1)
    with torch.no_grad():
        for time in times:
            evaluate_unet(world.pipeline, random(rows, *world.pipeline.latent_shape), time, states, None)
    handle.remove()
    return outputs[-1]


FITTED: dict[str, Tensor] = {}


@pytest.fixture
def fitted(world: World) -> dict[str, Tensor]:
    if not FITTED:
        FITTED.update(fit(world, settings_of("equisteer", concepts=2), BOTH))
    return dict(FITTED)


@pytest.mark.parametrize("rows", [16, 8])  # with guidance, and at guidance 1
@pytest.mark.parametrize("step", [0, 2])
def test_each_image_is_steered_to_its_class(
    world: World, batch: Batch, fitted: dict[str, Tensor], rows: int, step: int
) -> None:
    settings, times = settings_of("equisteer", scale=1.5), fitted["timesteps"][: step + 1]
    plain = first_output(world, rows, times)
    intervention = apply(world, settings, GENDER, {k: v for k, v in fitted.items() if not k.startswith("race")})
    with intervention.activations(sampling_of(world, batch)):
        steered = first_output(world, rows, times)
    assert torch.equal(steered[: rows - 8], plain[: rows - 8])
    torch.testing.assert_close(steered.norm(dim=-1), plain.norm(dim=-1), atol=1e-5, rtol=1e-4)
    layer = first_layer(world)[0]
    directions = fitted[f"gender/directions/{layer}"][step]
    magnitudes = fitted[f"gender/magnitudes/{layer}"][step]
    for row, cell in enumerate(assign(GENDER, batch, "quota"), start=rows - 8):
        for old, new in zip(plain[row], steered[row], strict=True):
            s = directions[cell]
            expected = old - (old @ s) * s + 1.5 * magnitudes[cell] * s
            expected = expected * old.norm() / expected.norm()
            torch.testing.assert_close(new, expected, atol=1e-5, rtol=1e-4)


def test_attributes_are_exchanged_one_after_the_other(world: World, batch: Batch, fitted: dict[str, Tensor]) -> None:
    times = fitted["timesteps"][:2]
    plain = first_output(world, 8, times).double()
    with apply(world, settings_of("equisteer"), BOTH, fitted).activations(sampling_of(world, batch)):
        steered = first_output(world, 8, times)
    layer, expected = first_layer(world)[0], plain
    classes = [cells(BOTH)[cell] for cell in assign(BOTH, batch, "quota")]
    for attribute in ("gender", "race"):
        directions = fitted[f"{attribute}/directions/{layer}"][1].double()
        names = list(UNIFORM[attribute])
        drawn = torch.tensor([names.index(cell[attribute]) for cell in classes])
        shift = fitted[f"{attribute}/magnitudes/{layer}"][1][drawn, None] * directions[drawn]
        onto = directions.T @ torch.linalg.pinv(directions.T, rtol=1e-4)
        expected = expected - expected @ onto + shift[:, None]
    expected = expected * plain.norm(dim=-1, keepdim=True) / expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(steered, expected.float(), atol=1e-4, rtol=1e-3)


def test_between_fitted_steps_the_nearest_counts() -> None:
    fitted = np.array([900, 500, 100])
    assert nearest(fitted, fitted) == [0, 1, 2]
    assert nearest(fitted, np.array([999, 701, 700, 699, 301, 0])) == [0, 0, 0, 1, 1, 2]


class Asked(TorchDispatchMode):
    """Counts how often a tensor is asked for a number, which has to wait for a GPU."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_step_asks_no_tensor_for_a_number(world: World, batch: Batch, fitted: dict[str, Tensor]) -> None:
    intervention, asked = apply(world, settings_of("equisteer"), BOTH, fitted), []
    for steps in (2, 4):  # other numbers than that of the fitted ones
        build_schedule(world.pipeline.scheduler_config, steps)  # which asks much, once
        with Asked() as mode:
            render(world.pipeline, intervention, batch, list(range(8)), steps, GUIDANCE, world.padding)
        asked.append(mode.count)
    assert asked[0] == asked[1]


def hooks(world: World) -> int:
    unet = world.pipeline.unet
    return len(unet._forward_pre_hooks) + sum(len(module._forward_hooks) for module in unet.modules())


def test_hooks_are_gone_afterwards_also_after_an_error(world: World, batch: Batch, fitted: dict[str, Tensor]) -> None:
    fit(world, settings_of("equisteer", concepts=1), GENDER)
    assert hooks(world) == 0
    intervention = apply(world, settings_of("equisteer"), BOTH, fitted)
    with pytest.raises(RuntimeError, match="half"), intervention.activations(sampling_of(world, batch)):
        assert hooks(world) > 1
        raise RuntimeError("half way")
    assert hooks(world) == 0


@pytest.mark.parametrize(("padding", "guidance"), [("longest", GUIDANCE), ("max_length", GUIDANCE), ("longest", 1.0)])
def test_images_do_not_depend_on_the_batch(
    world: World, batch: Batch, both_ways: Callable[[World, Intervention], Images], padding: Any, guidance: float
) -> None:
    world.padding, world.guidance, world.steps = padding, guidance, 2
    settings = settings_of("equisteer", concepts=1)
    images = both_ways(world, apply(world, settings, GENDER, fit(world, settings, GENDER)))
    torch.testing.assert_close(images.together, images.alone, atol=2e-5, rtol=0)
    plain = render(world.pipeline, Intervention(), batch, list(range(8)), 2, guidance, padding)
    assert (images.together - plain).abs().max() > 1e-3


def test_images_of_two_attributes_do_not_depend_on_the_batch(
    world: World, both_ways: Callable[[World, Intervention], Images], fitted: dict[str, Tensor]
) -> None:
    world.steps = 2
    images = both_ways(world, apply(world, settings_of("equisteer"), BOTH, fitted))
    torch.testing.assert_close(images.together, images.alone, atol=2e-5, rtol=0)


@pytest.mark.parametrize("autocast", [False, True])
def test_lower_precision_is_kept(
    world: World, batch: Batch, fitted: dict[str, Tensor], tiny_backbone: Path, autocast: bool
) -> None:
    dtype = torch.float32 if autocast else torch.bfloat16
    world.pipeline = load_pipeline(tiny_backbone, dtype=dtype, autocast=autocast)
    plain = first_output(world, 8, fitted["timesteps"][:1])
    with apply(world, settings_of("equisteer"), BOTH, fitted).activations(sampling_of(world, batch)):
        steered = first_output(world, 8, fitted["timesteps"][:1])
    assert steered.dtype == plain.dtype == torch.bfloat16
    torch.testing.assert_close(steered.float().norm(dim=-1), plain.float().norm(dim=-1), atol=0, rtol=1e-2)
    own = fit(world, settings_of("equisteer", concepts=1), GENDER)
    assert {own[key].dtype for key in own if key != "timesteps"} == {torch.float32}


@pytest.mark.parametrize("magnitude", ["largest", "mean"])
def test_fitting_contrasts_the_classes(world: World, magnitude: str) -> None:
    fitted = fit(world, settings_of("equisteer", concepts=2, magnitude=magnitude), GENDER)
    words, outputs = ("female", "male"), {}
    for word in words:  # one image after the other, in two passes over the loop: plain sampling
        for concept in ("cook", "judge"):
            noise = initial_noise(world.pipeline.latent_shape, [stable_seed(0, "equisteer", concept)])
            text = encode_prompts(world.pipeline, [f"a photo of a {word} {concept}"], world.padding)
            module = world.pipeline.unet.get_submodule(LAYER)
            handle = module.register_forward_hook(
                lambda m, a, x, key=(word, concept): outputs.setdefault(key, []).append(x[-1])
            )
            sample(world.pipeline, noise, text, torch.zeros(1, dtype=torch.long), STEPS, GUIDANCE, 1)
            handle.remove()
    for step in range(STEPS):
        own = [torch.stack([outputs[word, concept][step] for concept in ("cook", "judge")]) for word in words]
        difference = own[0].mean((0, 1)) - own[1].mean((0, 1))
        s = difference / difference.norm()
        directions = fitted[f"gender/directions/{LAYER}"][step]
        torch.testing.assert_close(directions, torch.stack([s, -s]), atol=1e-3, rtol=0)
        for k, sign in enumerate((1, -1)):
            along = own[k] @ (sign * s)
            expected = along.amax(1).mean() if magnitude == "largest" else along.mean()
            torch.testing.assert_close(fitted[f"gender/magnitudes/{LAYER}"][step, k], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("text", "attribute", "expected"),
    [
        ("a photo of a Female doctor", "gender", True),
        ("a photo of a female doctor", "race", False),
        ("a photo of a young black female doctor", "race", True),
        ("a black and white photo of a doctor", "race", False),
        ("a photo of a doctor, an asian person", "race", True),
        ("a photo of a doctor", "gender", False),
    ],
)
def test_the_gate_sees_classes_said_of_the_concept(text: str, attribute: str, expected: bool) -> None:
    assert says(Prompt("x", text, "doctor", "test"), attribute) is expected


def test_the_gate_leaves_explicit_prompts_alone(world: World, fitted: dict[str, Tensor]) -> None:
    own = {k: v for k, v in fitted.items() if not k.startswith("race")}
    prompts = [
        Prompt("a", "a photo of a female cook", "cook", "test"),
        Prompt("b", "a photo of a cook", "cook", "test"),
    ]
    batch = Batch(prompts, [0, 0], 1, seed=5)

    def images(intervention: Intervention) -> Tensor:
        return render(world.pipeline, intervention, batch, [0, 1], STEPS, GUIDANCE, world.padding)

    plain = images(Intervention())
    gated = images(apply(world, settings_of("equisteer"), GENDER, own))
    open_ = images(apply(world, settings_of("equisteer", gate=False), GENDER, own))
    torch.testing.assert_close(gated[0], plain[0], atol=1e-5, rtol=0)
    assert (open_[0] - plain[0]).abs().max() > 1e-3
    assert torch.equal(gated[1], open_[1])
