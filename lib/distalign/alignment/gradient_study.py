"""Studies of the gradient estimators: what each does to the loss, and how large its parts are (Figure 1)."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distalign.alignment.gradient import adjoint_sweep, step_weights
from distalign.alignment.memory import retain_freed_memory
from distalign.alignment.one_image import OneImageTask, optimise_soft_prompts, random_words
from distalign.diffusion.noise import initial_noise
from distalign.diffusion.pipeline import Pipeline, load_generator
from distalign.diffusion.probing import batch_sizes, seen_by
from distalign.diffusion.sampler import generate, predict_noise, sample
from distalign.diffusion.text import TextConditioning, encode_prompts
from distalign.encoders import ClipEncoder, DinoEncoder, ImageEncoder
from distalign.prompts import load_prompts
from distalign.store.parquet import GRADIENT_STUDY, ParquetWriter
from distalign.store.provenance import collect
from distalign.store.seeds import stable_seed

log = logging.getLogger(__name__)

RANDOM_GRADIENT = 1e-2  # standard deviation of R, as in the paper: R ~ N(0, 1e-4 I)


@dataclass(frozen=True, kw_only=True)
class StudyPaths:
    """Files of a study: the models by name, the prompt set, and for `kind: loss` the encoders of the image loss."""

    backbones: Mapping[str, Path]
    prompts: Path
    clip: Path | None = None
    dino: Path | None = None


@dataclass(frozen=True)
class Cell:
    """One place of a study's grid."""

    backbone: str
    guidance: float
    steps: int


Rows = dict[str, Any]


def study_gradients(spec: Mapping[str, Any], paths: StudyPaths, output: Path, device: torch.device) -> None:
    """Make a study, cell by cell, and write it with schema GRADIENT_STUDY.

    Args:
        spec: What `Study.gradient_study_spec` says.
        paths: What it reads.
        output: Where to write.
        device: Where to compute.

    Raises:
        UserError: unreadable prompts, models or encoders.
    """
    retain_freed_memory()
    texts = [prompt.text for prompt in load_prompts(paths.prompts).split("validation")]
    inputs = {"prompts": paths.prompts, **{f"backbone/{name}": path for name, path in paths.backbones.items()}}
    measure = _loss_curves if spec["kind"] == "loss" else _magnitudes
    with ParquetWriter(output, GRADIENT_STUDY, collect("gradient_study", spec, inputs)) as writer:
        for name in spec["backbones"]:
            pipeline = load_generator(paths.backbones[name], spec, device)
            for guidance in spec["guidance"]:
                for steps in spec["sampler_steps"]:
                    cell, started = Cell(name, guidance, steps), time.monotonic()
                    for rows in measure(spec, paths, pipeline, cell, texts):
                        writer.write(rows)
                    seconds = time.monotonic() - started
                    log.info("%s model, guidance %g, %d steps: %.1f s", name, guidance, steps, seconds)


def step_magnitudes(
    pipeline: Pipeline,
    conditioning: TextConditioning,
    prompt_index: Tensor,
    noise: Tensor,
    gradient: Tensor,
    steps: int,
    guidance: float,
    estimators: Sequence[str],
    micro_batch: int,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Norm of every step's part of dL/d(embeddings of the prompt), by estimator; their sum over steps is the gradient.

    For `exact` that is |R A_t B_t deps_t|, for the others w_t |R deps_t| with the weights of `step_weights`: for
    `unstandardised` |R A_t deps_t|, for `adjusted` k |R deps_t| (the paper draws it with k = 1).

    Args:
        pipeline: the model.
        conditioning: P prompts.
        prompt_index: (B,), the prompt of each image.
        noise: (B, C, h, w), initial latents.
        gradient: (B, C, h, w), dL/dz0; R in the paper.
        steps: sampler steps, S.
        guidance: scale.
        estimators: names, see `alignment.gradient.WEIGHTS`.
        micro_batch: images at once.

    Returns:
        timesteps (S,) and the norms (S, B) of each estimator, first sampler step first.
    """
    leaf = conditioning.leaf()
    prompt_index, gradient = prompt_index.to(pipeline.device), gradient.to(pipeline.device)
    with torch.no_grad():
        rollout = sample(pipeline, noise, leaf, prompt_index, steps, guidance, micro_batch, keep=True)
    assert rollout.latents is not None
    latents, schedule = rollout.latents, rollout.schedule
    timesteps = torch.as_tensor(schedule.timesteps, device=pipeline.device)
    coupled, direct = np.empty((steps, len(noise))), np.empty((steps, len(noise)))
    for image in torch.arange(len(noise), device=pipeline.device).split(micro_batch):
        rows = image.cpu().numpy()

        def vjp(i: int, adjoint: Tensor, image: Tensor = image, rows: np.ndarray = rows) -> Tensor:
            z = latents[i, image].requires_grad_()
            states, mask = leaf.batch(prompt_index[image])
            states = states.detach().requires_grad_()
            prediction = predict_noise(pipeline, z, timesteps[i], states, mask, guidance)
            (alone,) = torch.autograd.grad(prediction, states, gradient[image], retain_graph=True)
            through, with_later = torch.autograd.grad(prediction, (z, states), adjoint)
            direct[i, rows], coupled[i, rows] = _prompt_norms(alone), _prompt_norms(with_later)
            return through

        adjoint_sweep(schedule, gradient[image], 1.0, vjp)
    sizes = {name: np.abs(step_weights(schedule, name))[:, None] * direct for name in estimators if name != "exact"}
    return schedule.timesteps, {name: coupled if name == "exact" else sizes[name] for name in estimators}


def _prompt_norms(states: Tensor) -> np.ndarray:
    """Norms (B,) of the prompt's half of a guidance batch's gradient (2B, L, D)."""
    norms: np.ndarray = states[len(states) // 2 :].double().flatten(1).norm(dim=1).cpu().numpy()
    return norms


def _magnitudes(
    spec: Mapping[str, Any], paths: StudyPaths, pipeline: Pipeline, cell: Cell, texts: Sequence[str]
) -> Iterator[Rows]:
    runs, shape = range(spec["runs"]), pipeline.latent_shape
    size = batch_sizes(spec["micro_batch"], pipeline, ("gradient",))["gradient"]
    texts = texts[: len(runs)]
    conditioning = encode_prompts(pipeline, texts, spec["text_padding"])
    noise = initial_noise(shape, [_seed(spec, "noise", run) for run in runs])
    gradient = RANDOM_GRADIENT * initial_noise(shape, [_seed(spec, "gradient", run) for run in runs])
    index = torch.tensor([run % len(texts) for run in runs])
    how = (cell.steps, cell.guidance, spec["estimators"], size)
    timesteps, sizes = step_magnitudes(pipeline, conditioning, index, noise, gradient, *how)
    for name, values in sizes.items():
        step, run = np.indices(values.shape)
        columns = {"run": run, "step": step, "timestep": timesteps[step], "value": values}
        yield _rows(cell, name, "magnitude", columns)


def _loss_curves(
    spec: Mapping[str, Any], paths: StudyPaths, pipeline: Pipeline, cell: Cell, texts: Sequence[str]
) -> Iterator[Rows]:
    runs, padding = range(spec["runs"]), spec["text_padding"]
    target = generate(pipeline, texts[:1], [_seed(spec, "target", 0)], cell.steps, cell.guidance, 1, padding)
    encoders = _encoders(spec, paths, pipeline.device)
    sizes = batch_sizes(spec["micro_batch"], pipeline, ("gradient", "loss"), seen_by(encoders))
    size = min(sizes.values())
    task = OneImageTask(pipeline, encoders, target, padding, cell.guidance, cell.steps, size)
    words = [random_words(pipeline, spec["prefix_tokens"], _seed(spec, "start", run)) for run in runs]

    def noise(iteration: int) -> Tensor:
        drawn = iteration if spec["noise"] == "fresh" else 0
        return initial_noise(pipeline.latent_shape, [_seed(spec, "noise", run, drawn) for run in runs])

    how = (spec["estimators"], spec["iterations"], spec["learning_rate"])
    for name, curves in optimise_soft_prompts(task, torch.stack(words), noise, *how).items():
        log.info("%s: loss %.3f to %.3f", name, *curves.loss.mean(axis=1)[[0, -1]])
        for quantity, values in vars(curves).items():
            iteration, run = np.indices(values.shape)
            yield _rows(cell, name, quantity, {"run": run, "iteration": iteration, "value": values})


def _encoders(spec: Mapping[str, Any], paths: StudyPaths, device: torch.device) -> dict[str, ImageEncoder]:
    """The image loss's encoders, in the precision of the frozen networks."""
    assert paths.clip is not None and paths.dino is not None
    precision, kinds = getattr(torch, spec["precision"]), spec["encoders"]
    clip = ClipEncoder(paths.clip, kinds["clip"]["antialias"]).to(device, precision)
    return {"clip": clip, "dino": DinoEncoder(paths.dino, kinds["dino"]["antialias"]).to(device, precision)}


def _seed(spec: Mapping[str, Any], stream: str, *numbers: int) -> int:
    return stable_seed(spec["seed"], "gradient study", stream, *numbers)


def _rows(cell: Cell, estimator: str, quantity: str, columns: Mapping[str, np.ndarray]) -> Rows:
    """Rows of GRADIENT_STUDY; columns not given are null."""
    size = columns["value"].size
    about = {"backbone": cell.backbone, "guidance": float(cell.guidance), "sampler_steps": cell.steps}
    named = {**about, "estimator": estimator, "quantity": quantity}
    given = {key: values.ravel() for key, values in columns.items()}
    return {field: given.get(field, [named.get(field)] * size) for field in GRADIENT_STUDY.names}
