"""The numbers of Figure 1 against plain autograd, in float64 on the tiny model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from distalign.alignment.gradient import GradientSettings, StepChoice, accumulate_gradients, step_weights
from distalign.alignment.gradient_study import StudyPaths, step_magnitudes, study_gradients
from distalign.alignment.one_image import OneImageTask, accumulate_by_image, optimise_soft_prompts, random_words
from distalign.diffusion.noise import initial_noise
from distalign.diffusion.pipeline import Pipeline, load_pipeline
from distalign.diffusion.sampler import advance, predict_noise, sample
from distalign.diffusion.schedule import build_schedule
from distalign.diffusion.text import encode_prompts
from distalign.measure.gradient_study import by_cell, summarise
from distalign.store.files import atomic_write_json
from distalign.store.parquet import GRADIENT_STUDY, read_provenance, read_table
from helpers.tiny import PROMPTS

STEPS, GUIDANCE, INDEX = 4, 3.0, torch.tensor([0, 1, 1])
ESTIMATORS = ("exact", "unstandardised", "adjusted", "released")


class Pixels:
    """An image encoder that only looks at brightness."""

    def __init__(self, cells: int) -> None:
        self.cells = cells

    def encode_images(self, images: Tensor) -> Tensor:
        pooled = torch.nn.functional.adaptive_avg_pool2d(images, self.cells).flatten(1)
        return torch.nn.functional.normalize(pooled, dim=1)


@pytest.fixture(scope="module")
def pipeline(tiny_backbone: Path) -> Pipeline:
    return load_pipeline(tiny_backbone, dtype=torch.float64)


def noise_and_gradient(pipeline: Pipeline) -> tuple[Tensor, Tensor]:
    draw = [initial_noise(pipeline.latent_shape, [seed, seed + 1, seed + 2]).double() for seed in (1, 11)]
    return draw[0], draw[1]


def parts_by_autograd(pipeline: Pipeline, detached: bool) -> np.ndarray:
    """Norms (S, B) of d(R z0)/d(a step's own copy of the prompt), by backpropagation through the whole sampling."""
    noise, gradient = noise_and_gradient(pipeline)
    schedule = build_schedule(pipeline.scheduler_config, STEPS)
    conditioning = encode_prompts(pipeline, PROMPTS)
    states, mask = (part.detach() if part is not None else None for part in conditioning.batch(INDEX))
    copies = [states.clone().requires_grad_() for _ in range(STEPS)]
    z, before = noise, None
    for i, t in enumerate(torch.as_tensor(schedule.timesteps)):
        eps = predict_noise(pipeline, z.detach() if detached else z, t, copies[i], mask, GUIDANCE)
        z, before = advance(schedule, i, z, eps, before)
    parts = torch.autograd.grad((gradient * z).sum(), copies)
    return np.array([part[len(noise) :].flatten(1).norm(dim=1).numpy() for part in parts])


@pytest.mark.parametrize("micro_batch", [2, 5])
def test_magnitudes_against_autograd(pipeline: Pipeline, micro_batch: int) -> None:
    noise, gradient = noise_and_gradient(pipeline)
    conditioning = encode_prompts(pipeline, PROMPTS)
    how = (STEPS, GUIDANCE, ESTIMATORS, micro_batch)
    timesteps, sizes = step_magnitudes(pipeline, conditioning, INDEX, noise, gradient, *how)
    exact, direct = parts_by_autograd(pipeline, detached=False), parts_by_autograd(pipeline, detached=True)
    assert np.allclose(sizes["exact"], exact, rtol=1e-8, atol=0)
    assert np.allclose(sizes["unstandardised"], direct, rtol=1e-8, atol=0)
    assert not np.allclose(exact, direct, rtol=1e-3)
    schedule = build_schedule(pipeline.scheduler_config, STEPS)
    for name in ("adjusted", "released"):
        ratio = np.abs(step_weights(schedule, name) / step_weights(schedule, "unstandardised"))[:, None]
        assert np.allclose(sizes[name], direct * ratio, rtol=1e-8, atol=0)
    assert timesteps.tolist() == schedule.timesteps.tolist()


def embedding_gradient(pipeline: Pipeline, weights: Sequence[str]) -> Tensor:
    """Gradient (3, L, D) of each image's own prompt, image by image or by the engine if all weights are one."""
    noise, gradient = noise_and_gradient(pipeline)
    conditioning = encode_prompts(pipeline, [PROMPTS[0], PROMPTS[1], "a doctor at work"])
    conditioning.embeddings.requires_grad_()
    leaf, index = conditioning.leaf(), torch.arange(3)
    rollout = sample(pipeline, noise, leaf, index, STEPS, GUIDANCE, 2, keep=True)
    if len(weights) == 1:
        choice = StepChoice(tuple(range(STEPS)), (1.0,) * STEPS)
        settings = GradientSettings(weights[0])
        accumulate_gradients(pipeline, rollout, gradient, leaf, index, GUIDANCE, settings, choice, 2)
    else:
        accumulate_by_image(pipeline, rollout, gradient, leaf, index, GUIDANCE, weights, 2)
    assert leaf.embeddings.grad is not None
    return leaf.embeddings.grad


def test_each_image_by_its_own_estimator_is_what_the_engine_does(tiny_backbone: Path) -> None:
    pipeline = load_pipeline(tiny_backbone, dtype=torch.float64)
    mixed = ("adjusted", "exact", "unstandardised")
    together = embedding_gradient(pipeline, mixed)
    for image, name in enumerate(mixed):
        alone = embedding_gradient(pipeline, (name,))[image]
        assert (together[image] - alone).norm() <= 1e-10 * alone.norm()


def task_and_starts(pipeline: Pipeline) -> tuple[OneImageTask, Tensor]:
    target = torch.linspace(-1, 1, 3 * 16 * 16, dtype=torch.float64).view(1, 3, 16, 16)
    task = OneImageTask(pipeline, {"fine": Pixels(8), "coarse": Pixels(2)}, target, "longest", GUIDANCE, STEPS, 3)
    return task, torch.stack([random_words(pipeline, 3, seed) for seed in (0, 1)]).double()


def test_a_soft_prompt_learns_and_runs_do_not_touch_each_other(tiny_backbone: Path) -> None:
    pipeline = load_pipeline(tiny_backbone, dtype=torch.float64)
    task, starts = task_and_starts(pipeline)
    noise = initial_noise(pipeline.latent_shape, [5, 6]).double()
    curves = optimise_soft_prompts(task, starts, lambda _: noise, ("exact", "adjusted"), 12, 0.3)
    assert pipeline.prefix_ids == []
    for name in ("exact", "adjusted"):
        assert curves[name].loss.shape == curves[name].gradient_norm.shape == (12, 2)
        assert (curves[name].loss[-1] < curves[name].loss[0] - 1e-4).all()
    assert np.allclose(curves["exact"].loss[0], curves["adjusted"].loss[0], rtol=1e-12)
    alone = optimise_soft_prompts(task, starts[1:], lambda _: noise[1:], ("adjusted",), 12, 0.3)["adjusted"]
    assert np.allclose(alone.loss[:, 0], curves["adjusted"].loss[:, 1], rtol=1e-6)


def test_gradient_of_the_soft_prompt_is_that_of_the_loss(tiny_backbone: Path) -> None:
    pipeline = load_pipeline(tiny_backbone, dtype=torch.float64)
    task, starts = task_and_starts(pipeline)
    noise = initial_noise(pipeline.latent_shape, [5, 6]).double()

    def losses(prompts: Tensor) -> np.ndarray:
        return optimise_soft_prompts(task, prompts, lambda _: noise, ("exact",), 1, 1e-9)["exact"].loss[0]

    norm = optimise_soft_prompts(task, starts, lambda _: noise, ("exact",), 1, 1e-9)["exact"].gradient_norm[0]
    slopes, step = np.zeros((starts[0].numel(), 2)), 1e-5
    for place in range(len(slopes)):
        shift = torch.zeros_like(starts[0]).view(-1)
        shift[place] = step
        shift = shift.view_as(starts[0])
        slopes[place] = (losses(starts + shift) - losses(starts - shift)) / (2 * step)
    assert np.allclose(np.linalg.norm(slopes, axis=0), norm, rtol=1e-4)


def spec(kind: str) -> dict:
    return {
        "kind": kind, "estimators": ["exact", "unstandardised", "adjusted"], "runs": 3, "guidance": [1.0, 3.0],
        "sampler_steps": [2, 3], "backbones": ["shipped"], "noise": "fresh", "seed": 0, "prompts": "x",
        "precision": "float32", "text_padding": "longest", "micro_batch": {"sample": 2, "gradient": 2},
        "iterations": 2, "learning_rate": 0.1, "prefix_tokens": 2,
    }  # fmt: skip


@pytest.fixture
def paths(tiny_backbone: Path, tmp_path: Path) -> StudyPaths:
    splits = {"train": ["cook"], "validation": ["judge", "clerk"], "test": ["nurse"]}
    atomic_write_json(tmp_path / "prompts.json", {"template": "a {concept}", "splits": splits})
    return StudyPaths(backbones={"shipped": tiny_backbone}, prompts=tmp_path / "prompts.json")


def test_a_study_of_magnitudes_fills_its_grid_and_repeats(paths: StudyPaths, tmp_path: Path) -> None:
    for name in ("a", "b"):
        study_gradients(spec("magnitude"), paths, tmp_path / f"{name}.parquet", torch.device("cpu"))
    study = read_table(tmp_path / "a.parquet", GRADIENT_STUDY)
    assert study.equals(read_table(tmp_path / "b.parquet", GRADIENT_STUDY))
    cells = by_cell(study, "magnitude")
    assert list(cells) == [("shipped", guidance, steps) for guidance in (1, 3) for steps in (2, 3)]
    assert all(np.isfinite(v).all() and v.shape == (cell[2], 3) for cell, e in cells.items() for v in e.values())
    assert read_provenance(tmp_path / "a.parquet")["stage"] == "gradient_study"
    assert set(summarise("sizes", study)["quantity"].to_pylist()) == {
        "growth_orders", "coupling_orders", "coupling_peak_orders", "first_step_variation",
    }  # fmt: skip


def test_a_study_of_losses_writes_every_iteration(
    paths: StudyPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distalign.alignment.gradient_study._encoders", lambda *_: {"fine": Pixels(8)})
    study_gradients(spec("loss"), paths, tmp_path / "a.parquet", torch.device("cpu"))
    study = read_table(tmp_path / "a.parquet", GRADIENT_STUDY)
    assert study.num_rows == 4 * 3 * 3 * 2 * 2
    assert set(study["quantity"].to_pylist()) == {"loss", "gradient_norm"}
    assert study["step"].null_count == study.num_rows
