"""Half precision: adapters stay float32, gradients are those of float32 but for rounding, the loss scale goes along."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from distalign.alignment.half import CLEAN, FIRST, LARGEST, LossScale
from distalign.alignment.trainer import FinetunePaths, Judges, finetune
from distalign.diffusion.adapters import Adapter, attach_adapter, load_adapter, save_adapter
from distalign.diffusion.noise import initial_noise
from distalign.diffusion.pipeline import Pipeline, load_pipeline
from distalign.diffusion.sampler import predict_noise
from distalign.diffusion.text import encode_prompts
from helpers.finetuning import tiny_judges, tiny_paths, tiny_plan_spec, tiny_spec
from helpers.tiny import PROMPTS

HALF = [torch.float16, torch.bfloat16]


def adapted(path: Path, dtype: torch.dtype) -> Adapter:
    adapter = attach_adapter(load_pipeline(path, dtype=dtype), ["text_encoder", "unet"], 2, 0, 1)
    for i, parameter in enumerate(adapter.parameters.values()):
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
    return adapter


def prediction(pipeline: Pipeline) -> Tensor:
    states, mask = encode_prompts(pipeline, PROMPTS).batch(torch.tensor([0, 1]))
    return predict_noise(pipeline, initial_noise(pipeline.latent_shape, [1, 2]), torch.tensor(500), states, mask, 3.0)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_predictions_and_gradients_are_those_of_float32_but_for_rounding(
    tiny_backbone: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    found = {}
    for precision in (torch.float32, dtype):
        adapter = adapted(tiny_backbone, precision)
        assert {parameter.dtype for parameter in adapter.parameters.values()} == {torch.float32}
        output = prediction(adapter.pipeline)
        assert output.dtype == torch.float32
        (output * initial_noise(adapter.pipeline.latent_shape, [3, 4])).sum().backward()
        gradient = torch.cat([parameter.grad.flatten() for parameter in adapter.parameters.values()])
        found[precision] = output.detach(), gradient
    assert (adapter.pipeline.unet.dtype, adapter.pipeline.vae.dtype) == (dtype, dtype)
    for rounded, exact in zip(found[dtype], found[torch.float32], strict=True):
        assert 0 < (rounded - exact).norm() < 0.1 * exact.norm()
    save_adapter(adapter, tmp_path / "adapter")
    again = load_pipeline(tiny_backbone, dtype=dtype)
    load_adapter(again, tmp_path / "adapter")
    torch.testing.assert_close(prediction(again), found[dtype][0])


def test_the_scale_falls_when_gradients_are_not_finite_and_rises_after_many_that_are() -> None:
    scale = LossScale.of("float16")
    for finite in (False, *[True] * CLEAN, *[True] * (CLEAN - 1), False, *[True] * (CLEAN - 1)):
        scale.update(finite)
    assert (scale.factor, scale.clean) == (FIRST / 2, CLEAN - 1)
    other = LossScale.of("float16")
    other.restore(scale.stored())
    other.update(True)
    assert (other.factor, other.clean) == (FIRST, 0)
    for _ in range(100 * CLEAN):
        other.update(True)
    assert other.factor == LARGEST
    for precision in ("float32", "bfloat16"):
        plain = LossScale.of(precision)
        plain.update(False)
        assert (plain.factor, plain.stored()) == (1, {})


def calling(act: Callable[[int, Tensor], Tensor]) -> Callable[..., Judges]:
    """Tiny judges whose CLIP features pass through `act` with the number of the call."""

    def load(spec: Any, paths: Any, device: Any) -> Judges:
        judges = tiny_judges(spec, paths, device)
        encoder, calls = judges.reader.encoders["clip"], iter(range(1000))
        original = encoder.encode_images
        encoder.encode_images = lambda images: act(next(calls), original(images))
        return judges

    return load


def overflow(call: int, features: Tensor) -> Tensor:
    return features * (torch.inf if call == 0 else 1)


def test_an_overflow_is_skipped_with_a_lower_scale_and_a_resumed_run_is_the_same(
    tiny_backbone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = tiny_spec(plan=tiny_plan_spec(precision="float16"), iterations=3, checkpoint_every=1)
    del spec["validate_every"]
    whole, parts = (tiny_paths(tiny_backbone, tmp_path / name) for name in ("whole", "parts"))
    finetune(spec, whole, 1, calling(overflow))
    assert "iteration 1: gradient is not finite; no update; loss scale lowered to 2048" in caplog.text
    assert "iteration 2: gradient" not in caplog.text

    def interrupted(call: int, features: Tensor) -> Tensor:
        os.kill(os.getpid(), 15)
        return overflow(call, features)

    with pytest.raises(SystemExit):
        finetune(spec, parts, 1, calling(interrupted))
    finetune(spec, parts, 1, tiny_judges)
    assert outcome(parts) == outcome(whole)


def outcome(paths: FinetunePaths) -> tuple[bytes, list[float]]:
    rows = pq.read_table(paths.run / "train_log.parquet").to_pylist()
    values = [row["value"] for row in rows if row["metric"] == "loss/image" and row["iteration"] > 0]
    return (paths.run / "adapter/pytorch_lora_weights.safetensors").read_bytes(), values
