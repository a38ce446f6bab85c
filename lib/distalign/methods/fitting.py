"""Fit a method: search its settings where a run asks for it, fit, and keep what it takes to sample with it."""

import importlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from distalign.alignment.reading import FaceReader, WorldPaths, load_reader
from distalign.alignment.state import TrainLog
from distalign.config.methods import METHODS
from distalign.diffusion.intervention import Intervention
from distalign.diffusion.pipeline import load_generator
from distalign.diffusion.probing import batch_sizes
from distalign.errors import UserError
from distalign.methods.assignment import Target
from distalign.methods.world import World
from distalign.prompts import load_split
from distalign.store.files import atomic_directory, atomic_write_json
from distalign.store.provenance import collect, write_provenance

log = logging.getLogger(__name__)
SETTINGS_FILE = "method.json"
TENSORS_FILE = "method.safetensors"
CLIP_T_TOLERANCE = 0.03  # a strength that loses more of the prompt than this is not taken while another loses less


# (world, settings, target) -> tensors; (world, settings, target, tensors) -> intervention
Fit = Callable[[World, Mapping[str, Any], Target], dict[str, Tensor]]
Apply = Callable[[World, Mapping[str, Any], Target, Mapping[str, Tensor]], Intervention]


def fit_method(spec: Mapping[str, Any], paths: WorldPaths, run: Path, device: torch.device) -> None:
    """Fit the method of `spec` (`Study.fit_spec`) and write adapter/, train_log.parquet, spec.json, provenance.json.

    With `search`, each combination of the values it lists is fitted and measured on the validation prompts; the one
    that comes nearest to the target is kept, among those that lose at most CLIP_T_TOLERANCE of the CLIP-T of the best.

    Raises:
        UserError: a file is missing or damaged, or the classifier does not read an aligned attribute.
    """
    started = time.monotonic()
    history = TrainLog()
    candidates = _candidates(spec)
    results: list[tuple[dict[str, float], dict[str, Any], dict[str, Tensor]]] = []
    known: dict[str, dict[str, Tensor]] = {}
    for number, settings in enumerate(candidates):
        world = make_world(spec, paths.backbone, device, paths)
        key = _fitted_by(spec["method"], settings)
        fitted = known[key] if key in known else fit(spec["method"], world, settings, spec["align"])
        known[key] = fitted
        scores: dict[str, float] = {}
        if len(candidates) > 1:
            intervention = apply(spec["method"], world, settings, spec["align"], fitted)
            scores = world.measure(intervention, world.validation, spec["align"]).scores(spec["align"])
            history.add(number, "validation", scores, "loss")
            shown = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
            log.info("%s: %s", {name: settings[name] for name in spec["search"]}, shown)
        results.append((scores, settings, fitted))
    scores, settings, fitted = results[best([scores for scores, _, _ in results])]
    history.add(0, "train", {"seconds": time.monotonic() - started})
    provenance = collect("fit", spec, paths.inputs(), {"run": spec["seed"]})
    history.write(run / "train_log.parquet", provenance)
    save_method(run / "adapter", spec, settings, fitted)
    atomic_write_json(run / "spec.json", dict(spec))
    write_provenance(run / "provenance.json", provenance)


def best(scores: list[dict[str, float]]) -> int:
    """The candidate to take: nearest to the target among those that keep the prompt; the first of equals."""
    kept = max((score.get("clip_t", 0.0) for score in scores), default=0.0) - CLIP_T_TOLERANCE
    able = [i for i, score in enumerate(scores) if score.get("clip_t", 0.0) >= kept]
    return min(able, key=lambda i: scores[i].get("target_distance", float("inf")))


def _fitted_by(method: str, settings: Mapping[str, Any]) -> str:
    """The settings a fit depends on, as a key."""
    return json.dumps({name: settings[name] for name, it in METHODS[method].settings.items() if it.fitted})


def _candidates(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    search = spec.get("search", {})
    return [{**spec["settings"], **dict(zip(search, values, strict=True))} for values in product(*search.values())]


def make_world(spec: Mapping[str, Any], backbone: Path, device: torch.device, paths: WorldPaths | None = None) -> World:
    """The world of a fitting's or an evaluation's spec, its model as it was loaded: methods may change weights.

    Without `paths` there are no prompts to fit on and nothing looks at images.
    """
    settings, pipeline = spec.get("settings", {}), load_generator(backbone, spec, device)
    sizes = batch_sizes(spec["micro_batch"], pipeline, ("sample", "gradient", "decode"))
    return World(
        pipeline=pipeline,
        padding=spec["text_padding"],
        steps=spec["sampler_steps"],
        guidance=spec["guidance"],
        micro_batch=sizes["sample"],
        seed=spec["seed"],
        images=spec.get("validation_images", 1),
        train=load_split(paths.prompts, settings.get("fit_on", "train")) if paths else (),
        validation=load_split(paths.prompts, "validation") if paths else (),
        load_reader=lambda: _reader(spec, paths, device),
        gradient_batch=sizes["gradient"],
        decode_batch=sizes["decode"],
    )


def _reader(spec: Mapping[str, Any], paths: WorldPaths | None, device: torch.device) -> FaceReader:
    if paths is None:
        raise TypeError(f"method {spec.get('method')!r} looks at images, but its entry in METHODS does not say so")
    return load_reader(spec, paths, device, spec["align"])


def _module(method: str) -> Any:
    return importlib.import_module(f"distalign.methods.{method}")


def fit(method: str, world: World, settings: Mapping[str, Any], target: Target) -> dict[str, Tensor]:
    """What a method learns; nothing where its file has no `fit`."""
    learn: Fit | None = getattr(_module(method), "fit", None)
    return learn(world, settings, target) if learn else {}


def apply(
    method: str, world: World, settings: Mapping[str, Any], target: Target, fitted: Mapping[str, Tensor]
) -> Intervention:
    """The intervention of a fitted method."""
    use: Apply = _module(method).apply
    return use(world, settings, target, fitted)


def save_method(
    directory: Path, spec: Mapping[str, Any], settings: Mapping[str, Any], fitted: Mapping[str, Tensor]
) -> None:
    """Write what it takes to sample: method, settings and target, and the tensors."""
    with atomic_directory(directory) as target:
        atomic_write_json(
            target / SETTINGS_FILE, {"method": spec["method"], "settings": dict(settings), "align": spec["align"]}
        )
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in fitted.items()}
        safetensors.torch.save_file(tensors, target / TENSORS_FILE)


def load_method(directory: Path, world: World) -> Intervention:
    """The intervention of a saved method on a world; it may change the model's weights.

    Raises:
        UserError: the directory holds no method.
    """
    if not (directory / SETTINGS_FILE).is_file():
        raise UserError(f"{directory}: no fitted method ({SETTINGS_FILE}) in it; fit it again")
    saved = json.loads((directory / SETTINGS_FILE).read_text(encoding="utf-8"))
    fitted = {
        name: tensor.to(world.pipeline.device)
        for name, tensor in safetensors.torch.load_file(directory / TENSORS_FILE).items()
    }
    return apply(saved["method"], world, saved["settings"], saved["align"], fitted)
