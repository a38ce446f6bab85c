"""The engine's gradient in half precision, in micro-batches, compiled: the same on every device."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distalign.alignment.gradient import GradientSettings, accumulate_gradients, choose_steps
from distalign.config.models import Preset
from distalign.diffusion.adapters import attach_adapter
from distalign.diffusion.noise import initial_noise
from distalign.diffusion.pipeline import load_generator
from distalign.diffusion.sampler import sample
from distalign.diffusion.text import encode_prompts
from helpers.tiny import PROMPTS, sd15_shaped_pipeline

STEPS, GUIDANCE = 5, 3.0
INDEX = [0, 1, 1]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sd15_shaped_pipeline(tmp_path_factory.mktemp("sd15"))


def engine_gradient(backbone: Path, device: torch.device, micro_batch: int = 3, **spec: Any) -> Tensor:
    """Of a sum of the final latents, with respect to a LoRA of text encoder and U-Net that is not fresh."""
    pipeline = load_generator(backbone, {"precision": "float32", **spec}, device)
    adapter = attach_adapter(pipeline, ["text_encoder", "unet"], rank=2, prefix_tokens=0, seed=1)
    for i, parameter in enumerate(adapter.parameters.values()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
        parameter.data += 0.2 * noise.to(device)
    conditioning = encode_prompts(pipeline, PROMPTS)
    leaf, index = conditioning.leaf(), torch.tensor(INDEX, device=device)
    noise = initial_noise(pipeline.latent_shape, range(len(INDEX)))
    rollout = sample(pipeline, noise, leaf, index, STEPS, GUIDANCE, micro_batch, keep=True)
    slope = torch.linspace(-1, 1, rollout.z0[0].numel(), device=device).view_as(rollout.z0[0])
    cotangent = slope.expand_as(rollout.z0).contiguous()
    settings = GradientSettings("adjusted")
    choice = choose_steps(settings, rollout.schedule, torch.Generator())
    accumulate_gradients(pipeline, rollout, cotangent, leaf, index, GUIDANCE, settings, choice, micro_batch)
    conditioning.backward(leaf)
    parts = [p.grad.flatten().double().cpu() for p in adapter.parameters.values() if p.grad is not None]
    assert len(parts) == len(adapter.parameters)
    return torch.cat(parts)


def difference(found: Tensor, wanted: Tensor) -> float:
    """Relative to the length of what is wanted."""
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_gives_the_gradient_of_float32(backbone: Path, device: torch.device, precision: str) -> None:
    half = engine_gradient(backbone, device, precision=precision)
    wanted = engine_gradient(backbone, device)
    assert torch.isfinite(half).all()
    assert difference(half, wanted) < (0.03 if precision == "float16" else 0.2)


def test_a_gpu_gives_the_gradient_of_a_cpu(backbone: Path, gpu: torch.device) -> None:
    assert difference(engine_gradient(backbone, gpu), engine_gradient(backbone, torch.device("cpu"))) < 1e-4


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_micro_batches_change_nothing(backbone: Path, gpu: torch.device, precision: str) -> None:
    one, all_at_once = (engine_gradient(backbone, gpu, size, precision=precision) for size in (1, 3))
    assert difference(one, all_at_once) < (1e-4 if precision == "float32" else 0.03)


@pytest.mark.skipif("compile" not in Preset.model_fields, reason="this version compiles nothing")
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_compiled_gives_the_gradient_of_eager(backbone: Path, gpu: torch.device, precision: str) -> None:
    eager, compiled = (engine_gradient(backbone, gpu, precision=precision, compile=it) for it in (False, True))
    assert difference(compiled, eager) < (1e-3 if precision == "float32" else 0.03)
