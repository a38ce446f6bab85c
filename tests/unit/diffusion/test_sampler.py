import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from distalign.config.fingerprint import fingerprint
from distalign.diffusion import intervention
from distalign.diffusion import pipeline as pipelines
from distalign.diffusion.attention import keep_keys
from distalign.diffusion.intervention import Batch, Intervention, render
from distalign.diffusion.noise import initial_noise
from distalign.diffusion.pipeline import load_generator, load_pipeline
from distalign.diffusion.sampler import decode, generate, predict_noise, sample
from distalign.diffusion.schedule import SOLVER, build_schedule
from distalign.diffusion.text import encode_prompts
from distalign.errors import UserError
from distalign.prompts import Prompt
from helpers.tiny import PROMPTS

TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def test_noise_depends_on_the_seed_of_its_image_alone() -> None:
    both = initial_noise((4, 3, 3), [7, 8])
    assert torch.equal(both[1:], initial_noise((4, 3, 3), [8]))
    assert not torch.equal(both[0], both[1])


@pytest.mark.parametrize("steps", [1, 2, 8, 14, 15, 21])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_linear_coefficients_are_the_solver_s_impulse_response(steps: int, prediction_type: str) -> None:
    schedule = build_schedule({**TABLE, "prediction_type": prediction_type}, steps)
    gain, weights = schedule.linear_coefficients()
    scheduler = DPMSolverMultistepScheduler(**TABLE, **SOLVER, prediction_type=prediction_type)
    scheduler.set_timesteps(steps)
    outputs = torch.eye(steps + 1)[:-1]  # column i: an impulse at step i; the last column starts from z_T = 1
    z = torch.eye(steps + 1)[-1]
    for output, t in zip(outputs, scheduler.timesteps, strict=True):
        z = scheduler.step(output, t, z).prev_sample
    np.testing.assert_allclose([*weights, gain], z.numpy(), rtol=2e-4, atol=2e-5)


def test_noise_table_of_zero_terminal_snr_is_the_model_s() -> None:
    config = {**TABLE, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    schedule = build_schedule(config, 5)
    scheduler = DPMSolverMultistepScheduler(**config, **SOLVER)
    scheduler.set_timesteps(5)
    z = torch.ones(1)
    for t in scheduler.timesteps:
        z = scheduler.step(torch.zeros(1), t, z).prev_sample
    assert schedule.linear_coefficients()[0] == pytest.approx(z.item(), rel=1e-3)
    assert schedule.signal[0] < 1e-3 < build_schedule(TABLE, 5).signal[0]


@pytest.mark.parametrize(
    ("steps", "first", "last"),
    [(19, -0.24, [0.10, 0.37, -2.28]), (21, -0.21, [0.10, 0.36, -2.06]), (23, -0.18, [0.17, 0.21, -1.79])],
)
def test_released_factors_are_those_of_the_released_code(steps: int, first: float, last: list[float]) -> None:
    schedule = build_schedule(TABLE, steps)
    factors = schedule.released_factors()
    effective = schedule.linear_coefficients()[1] * factors
    assert np.log(factors).sum() == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(effective[-3:], last, atol=0.005)
    assert effective[0] == pytest.approx(first, abs=0.005)
    assert np.all((effective[1:-5] < -0.29) & (effective[1:-5] > -0.44))


def test_coefficients_at_21_steps_run_as_the_paper_s_do() -> None:
    weights = build_schedule(TABLE, 21).linear_coefficients()[1]
    np.testing.assert_allclose(weights[:4], [-2.31, -2.80, -2.15, -1.48], atol=0.005)
    np.testing.assert_allclose(weights[-4:], [-0.06, 0.03, 0.10, -0.66], atol=0.005)


def test_unknown_prediction_type() -> None:
    with pytest.raises(UserError, match="prediction_type 'sample'"):
        build_schedule({**TABLE, "prediction_type": "sample"}, 5)


def test_images_equal_diffusers_own_pipeline(tiny_backbone: Path) -> None:
    pipeline = load_pipeline(tiny_backbone)
    ours = generate(pipeline, PROMPTS, [1, 2], 5, 4.0, 1, "max_length")
    reference = StableDiffusionPipeline.from_pretrained(tiny_backbone, local_files_only=True)
    reference.scheduler = DPMSolverMultistepScheduler.from_config(reference.scheduler.config, **SOLVER)
    reference.set_progress_bar_config(disable=True)
    noise = initial_noise(pipeline.latent_shape, [1, 2])
    theirs = reference(PROMPTS, latents=noise, num_inference_steps=5, guidance_scale=4.0, output_type="pt").images
    assert torch.allclose(ours, theirs * 2 - 1, atol=1e-5)


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_an_image_does_not_depend_on_its_batch(tiny_backbone: Path, padding: str) -> None:
    pipeline = load_pipeline(tiny_backbone)
    together = generate(pipeline, [*PROMPTS, PROMPTS[0]], [1, 2, 3], 3, 4.0, 2, padding)
    cases = zip([*PROMPTS, PROMPTS[0]], [1, 2, 3], strict=True)
    alone = [generate(pipeline, [prompt], [seed], 3, 4.0, 1, padding) for prompt, seed in cases]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


def test_longest_padding_is_the_released_regime_for_one_prompt(tiny_backbone: Path) -> None:
    pipeline = load_pipeline(tiny_backbone)
    conditioning = encode_prompts(pipeline, PROMPTS[:1], "longest")
    length = len(pipeline.tokenizer(PROMPTS[0])["input_ids"])
    empty = pipeline.tokenizer("", padding="max_length", max_length=length, return_tensors="pt")
    states = pipeline.text_encoder(empty["input_ids"], empty["attention_mask"]).last_hidden_state
    assert conditioning.embeddings.shape[1] == length
    assert conditioning.mask is None
    assert torch.allclose(conditioning.unconditional, states, atol=1e-6)


def test_guidance_one_is_the_conditional_model(tiny_backbone: Path) -> None:
    pipeline = load_pipeline(tiny_backbone)
    exactly = generate(pipeline, PROMPTS, [1, 2], 3, 1.0, 2)
    nearly = generate(pipeline, PROMPTS, [1, 2], 3, 1.0 + 1e-7, 2)
    assert torch.allclose(exactly, nearly, atol=1e-5)


def test_rollout_keeps_latents_and_independent_graphs(tiny_backbone: Path) -> None:
    pipeline = load_pipeline(tiny_backbone)
    conditioning = encode_prompts(pipeline, PROMPTS)
    noise = initial_noise(pipeline.latent_shape, [1, 2, 3])
    index = torch.tensor([0, 1, 1])
    plain = sample(pipeline, noise, conditioning, index, 4, 3.0, 2)
    kept = sample(pipeline, noise, conditioning, index, 4, 3.0, 2, keep=True, graph_steps={1, 3})
    assert torch.equal(plain.z0, kept.z0)
    assert plain.latents is None
    assert torch.equal(kept.latents[0], noise)
    assert [(g.step, g.start, g.stop) for g in kept.graphs] == [(1, 0, 2), (3, 0, 2), (1, 2, 3), (3, 2, 3)]
    assert torch.equal(kept.graphs[1].latents, kept.latents[3, :2])
    assert not kept.z0.requires_grad
    images = decode(pipeline, kept.z0.requires_grad_(), 2)
    assert images.shape == (3, 3, 16, 16)
    assert images.requires_grad
    assert images.abs().max() <= 1


def test_autocast_changes_predictions_and_gradients_by_rounding_only(tiny_backbone: Path) -> None:
    found = {}
    for autocast in (False, True):
        pipeline = load_pipeline(tiny_backbone, autocast=autocast)
        states, mask = encode_prompts(pipeline, PROMPTS).batch(torch.tensor([0, 1]))
        states = states.detach().requires_grad_()
        latents = initial_noise(pipeline.latent_shape, [1, 2]).requires_grad_()
        prediction = predict_noise(pipeline, latents, torch.tensor(500), states, mask, 3.0)
        (prediction * initial_noise(pipeline.latent_shape, [3, 4])).sum().backward()
        found[autocast] = prediction.detach(), states.grad, latents.grad
    for exact, rounded in zip(found[False], found[True], strict=True):
        assert rounded.dtype == torch.float32
        assert 0 < (rounded - exact).norm() < 0.05 * exact.norm()


def test_autocast_changes_decoded_images_and_gradients_by_rounding_only(tiny_backbone: Path) -> None:
    found = {}
    for autocast in (False, True):
        pipeline = load_pipeline(tiny_backbone, autocast=autocast)
        z0 = initial_noise(pipeline.latent_shape, [1, 2]).requires_grad_()
        images = decode(pipeline, z0, 2)
        images.sin().sum().backward()
        found[autocast] = images.detach(), z0.grad
    for exact, rounded in zip(found[False], found[True], strict=True):
        assert rounded.dtype == torch.float32
        assert 0 < (rounded - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize(
    ("setting", "able", "expected"), [(None, True, False), ("bfloat16", True, True), ("bfloat16", False, False)]
)
def test_autocast_where_the_preset_says_so_and_the_processor_can(
    tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch, setting: str | None, able: bool, expected: bool
) -> None:
    monkeypatch.setattr(pipelines, "has_bfloat16", lambda device: able)
    spec = {"precision": "float32"} | ({"autocast": setting} if setting else {})
    pipeline = load_generator(tiny_backbone, spec, torch.device("cpu"))
    assert pipeline.autocast is expected
    assert pipeline.dtype == torch.float32


def test_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model_index\.json is missing"):
        load_pipeline(tmp_path)


WAITS = ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__")


@contextmanager
def nothing_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What would make the CPU wait for a GPU is an error."""

    def refuse(name: str) -> Callable[..., Any]:
        def call(self: Any, *arguments: Any, **options: Any) -> Any:
            raise AssertionError(f"Tensor.{name} waits for the device")

        return call

    with monkeypatch.context() as patch:
        for name in WAITS:
            patch.setattr(torch.Tensor, name, refuse(name))
        yield


@pytest.mark.parametrize("keeps", [False, True])
def test_the_sampling_loop_never_waits_for_the_device(
    tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch, keeps: bool
) -> None:
    pipeline = load_pipeline(tiny_backbone)
    if keeps:
        keep_keys(pipeline.unet)
        pipeline.keeps_keys = True
    conditioning = encode_prompts(pipeline, PROMPTS).leaf()
    noise, index = initial_noise(pipeline.latent_shape, [1, 2, 3]), torch.tensor([0, 1, 1])
    build_schedule(pipeline.scheduler_config, 3)  # on the CPU, once per number of steps
    with nothing_waits(monkeypatch):
        sample(pipeline, noise, conditioning, index, 3, 3.0, 2, keep=True)
        sample(pipeline, noise, conditioning, index, 3, 3.0, 2, graph_steps=(0, 2))

    def guarded(*arguments: Any, **options: Any) -> Any:
        with nothing_waits(monkeypatch):
            return sample(*arguments, **options)

    monkeypatch.setattr(intervention, "sample", guarded)
    prompts = [Prompt(text, text, text, "test") for text in PROMPTS]
    render(pipeline, Intervention(), Batch(prompts, [0, 0], 1, 0), [1, 2], 3, 3.0, "longest")


def test_a_compiled_model_samples_but_is_neither_differentiated_nor_hooked(
    tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    spec = {"precision": "float32", "compile": True}
    pipeline, plain = load_generator(tiny_backbone, spec, torch.device("cpu")), load_pipeline(tiny_backbone)
    for it in (pipeline, plain):
        keep_keys(it.unet)
        it.keeps_keys = True
    assert torch.equal(*[generate(it, PROMPTS, [1, 2], 2, 3.0, 2) for it in (pipeline, plain)])
    with torch.no_grad():
        assert pipeline.network() is pipeline.compiled
        handle = pipeline.unet.mid_block.register_forward_hook(lambda module, arguments, output: output)
        assert pipeline.network() is pipeline.unet
        handle.remove()
        assert pipeline.network() is pipeline.compiled
    assert pipeline.network() is pipeline.unet
    assert fingerprint(spec) == fingerprint({"precision": "float32"})
