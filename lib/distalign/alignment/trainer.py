"""Finetuning an adapter for fairness: algorithm A.1 of the paper, resumable, in one process or several."""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch.nn.utils import clip_grads_with_norm_
from torch.optim import AdamW

from distalign.alignment.distributed import Group
from distalign.alignment.gradient import GradientSettings, accumulate_gradients, accumulate_renoised, choose_steps
from distalign.alignment.half import LossScale
from distalign.alignment.memory import graphs_fit, retain_freed_memory
from distalign.alignment.objective import Objective
from distalign.alignment.originals import Originals
from distalign.alignment.plan import Iteration, TrainingPlan
from distalign.alignment.reading import FaceReader, WorldPaths, load_reader
from distalign.alignment.state import TrainState
from distalign.alignment.validation import Validation, attribute_scores
from distalign.classifiers.models import Classifier, load_classifier
from distalign.diffusion.adapters import MovingAverage, attach_adapter, save_adapter
from distalign.diffusion.batch_sizes import KINDS
from distalign.diffusion.noise import initial_noise
from distalign.diffusion.pipeline import load_generator
from distalign.diffusion.probing import batch_sizes, seen_by
from distalign.diffusion.sampler import sample
from distalign.diffusion.schedule import build_schedule
from distalign.diffusion.text import encode_prompts
from distalign.errors import UserError
from distalign.exclusive import held
from distalign.faces.bank import FaceBank, load_bank
from distalign.prompts import load_split
from distalign.store.files import atomic_write_json
from distalign.store.provenance import collect, write_provenance
from distalign.store.seeds import stable_seed

log = logging.getLogger(__name__)
SKIPS_ALLOWED = 20  # updates in a row


@dataclass(frozen=True, kw_only=True)
class FinetunePaths(WorldPaths):
    """Files a finetuning reads, and the directory of the run it writes.

    `run` receives adapter/, train_log.parquet, spec.json and provenance.json, and while training state/.
    """

    evaluation_classifier: Path
    bank: Path
    originals: Path
    run: Path


@dataclass(frozen=True)
class Judges:
    """All that looks at images in training."""

    reader: FaceReader
    evaluation: Classifier
    bank: FaceBank


def load_judges(spec: Mapping[str, Any], paths: FinetunePaths, device: torch.device) -> Judges:
    """The judges of a finetuning spec.

    Raises:
        UserError: a file is missing or damaged, or a classifier does not read an aligned attribute.
    """
    reader = load_reader(spec["plan"], paths, device, spec["align"])
    evaluation = load_classifier(paths.evaluation_classifier, device, spec["align"])
    return Judges(reader, evaluation, load_bank(paths.bank, device))


Load = Callable[[Mapping[str, Any], FinetunePaths, torch.device], Judges]


def finetune(
    spec: Mapping[str, Any],
    paths: FinetunePaths,
    threads: int,
    judges: Load = load_judges,
) -> None:
    """Train the adapter `spec` describes, or go on with it, and write it to `paths.run`.

    Under torchrun this is one of several processes that make one update together.

    Raises:
        UserError: something is missing or does not fit; or gradients are not finite time after time.
        SystemExit: stopped by SIGTERM or SIGINT, after saving; the next call goes on from there.
    """
    torch.set_num_threads(threads)
    group = Group.from_environment()
    if group.device.type == "cpu":
        retain_freed_memory()
    try:
        group.share(spec["images_per_step"])
        with held(paths.run / "state/.lock", "this run") if group.rank == 0 else nullcontext():
            group.any(False)  # the others wait for rank 0 before they read the state
            trainer = Trainer(spec, paths, judges(spec, paths, group.device), group)
            with stop_requests() as stop:
                trainer.run(stop)
            if group.rank == 0:
                trainer.finish()
    finally:
        group.close()


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of dying of them; a training loop looks between iterations."""
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        log.warning("%s: stopping after this iteration", signal.Signals(number).name)
        received.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def learning_rate(spec: Mapping[str, Any], k: int) -> float:
    """The learning rate of update k (from 0): constant, or on half a cosine that would reach 0 after the last."""
    decay = (1 + math.cos(math.pi * k / spec["iterations"])) / 2 if "learning_rate_decay" in spec else 1.0
    return float(spec["learning_rate"]) * decay


class Trainer:
    """One run: everything loaded, from the newest checkpoint on."""

    def __init__(self, spec: Mapping[str, Any], paths: FinetunePaths, judges: Judges, group: Group) -> None:
        self.spec, self.paths, self.group = spec, paths, group
        self.padding = spec["plan"]["text_padding"]
        self.pipeline = load_generator(paths.backbone, spec["plan"], group.device)
        adapter = attach_adapter(
            self.pipeline,
            spec["train"],
            spec.get("rank", 0),
            spec.get("prefix_tokens", 0),
            stable_seed(spec["seed"], "adapter"),
        )
        self.plan = TrainingPlan.from_spec(spec["plan"], load_split(paths.prompts, "train"))
        self.part = group.share(self.plan.images)
        self.gradient = GradientSettings.from_spec(spec["gradient"], self._keep_graph())
        self.originals = Originals(paths.originals, self.plan, judges.reader.classifier.attributes)
        self.sizes = batch_sizes(spec["micro_batch"], self.pipeline, KINDS, seen_by(judges.reader.encoders))
        sized = {**spec, "micro_batch": self.sizes}
        self.objective = Objective(sized, self.pipeline, judges.reader, judges.bank, group)
        self.validation = None
        if "validate_every" in spec:
            validation = load_split(paths.prompts, "validation")
            self.validation = Validation(sized, self.pipeline, judges.reader, judges.evaluation, validation, group)
        optimizer = AdamW(adapter.parameters.values(), spec["learning_rate"], weight_decay=spec["weight_decay"])
        average, scale = MovingAverage(adapter.parameters, spec["ema_decay"]), LossScale.of(spec["plan"]["precision"])
        self.state = TrainState(adapter, average, optimizer, scale=scale)
        if self.state.load(paths.run / "state", spec):
            log.info("resuming at iteration %d of %d", self.state.iteration, spec["iterations"])

    def run(self, stop: list[int]) -> None:
        """Train to the end, with checkpoints and validations on the way."""
        state, total = self.state, self.spec["iterations"]
        if state.iteration == 0:
            self._validate()
        while state.iteration < total:
            metrics = self._iterate(state.iteration)
            state.log.add(state.iteration, "train", {n: v for n, v in metrics.items() if not n.startswith("bias/")})
            biases = {name: value for name, value in metrics.items() if name.startswith("bias/")}
            state.log.add(state.iteration, "train", biases, "loss")
            state.iteration += 1
            log.info(
                "iteration %d/%d  %s", state.iteration, total, "  ".join(f"{n} {v:.4g}" for n, v in metrics.items())
            )
            if state.iteration % self.spec.get("validate_every", total) == 0 or state.iteration == total:
                self._validate()
            stopping = self.group.any(bool(stop))
            if self.group.rank == 0 and (
                stopping or state.iteration == total or state.iteration % self.spec["checkpoint_every"] == 0
            ):
                state.save(self.paths.run / "state", self.spec)
            if stopping and state.iteration < total:
                log.warning(
                    "interrupted and saved after iteration %d of %d; run again to go on", state.iteration, total
                )
                raise SystemExit(128 + (stop[0] if stop else signal.SIGTERM))

    def _iterate(self, k: int) -> dict[str, float]:
        """One update; measurements of the images it was made from."""
        started = time.monotonic()
        iteration = self.plan.iteration(k)
        state = self.state
        state.optimizer.zero_grad()
        metrics = self._accumulate(iteration, k)
        gradients = [p.grad for p in state.adapter.parameters.values() if p.grad is not None]
        self.group.sum(gradients)
        for gradient in gradients:
            gradient /= self.plan.images * state.scale.factor
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm().item()
        finite = not self.group.any(not np.isfinite(norm))
        state.scale.update(finite)
        if not finite:
            state.skipped += 1
            scaled = f"; loss scale lowered to {state.scale.factor:g}" if state.scale.dynamic else ""
            log.warning("iteration %d: gradient is not finite; no update%s", k + 1, scaled)
            if state.skipped > SKIPS_ALLOWED:
                raise UserError(
                    f"{state.skipped} gradients in a row were not finite; lower learning_rate or take other "
                    "gradient.weights"
                )
        else:
            for settings in state.optimizer.param_groups:
                settings["lr"] = learning_rate(self.spec, k)
            if "max_gradient_norm" in self.spec:
                limit = self.spec["max_gradient_norm"]
                clip_grads_with_norm_(state.adapter.parameters.values(), limit, torch.tensor(norm))
            state.optimizer.step()
            state.average.update()
            state.skipped = 0
        return {**metrics, "gradient_norm": norm, "seconds": time.monotonic() - started}

    def _accumulate(self, iteration: Iteration, k: int) -> dict[str, float]:
        """Add the gradient of the summed and scaled loss to the adapter's `.grad`."""
        scale = self.state.scale.factor
        spec, pipeline, device = self.spec, self.pipeline, self.group.device
        conditioning = encode_prompts(pipeline, [prompt.text for prompt in iteration.prompts], self.padding)
        leaf = conditioning.leaf()
        index = torch.tensor(iteration.prompt_index[self.part], device=device)
        seeds = iteration.noise_seeds[self.part]
        noise = initial_noise(pipeline.latent_shape, seeds)
        generator = torch.Generator().manual_seed(stable_seed(spec["seed"], "gradient steps", k))
        schedule = build_schedule(pipeline.scheduler_config, iteration.steps)
        choice = choose_steps(self.gradient, schedule, generator)
        keep = self.gradient.keep_graph
        micro_batch = self.sizes["gradient" if keep else "sample"]
        rollout = sample(
            pipeline, noise, leaf, index, iteration.steps, spec["guidance"], micro_batch,
            keep=not keep, graph_steps=choice.steps if keep else (),
            through_latents=self.gradient.weights == "exact",
        )  # fmt: skip
        originals = self.originals.batch(iteration, self.part, device)
        pull = self.objective.pull(rollout.z0, originals, iteration, k, keep, scale)
        share, size = 1 / (1 + self.gradient.renoise), self.sizes["gradient"]
        accumulate_gradients(
            pipeline, rollout, share * pull.cotangent, leaf, index, spec["guidance"], self.gradient, choice, size
        )
        for j in range(self.gradient.renoise):
            again = initial_noise(
                pipeline.latent_shape, [stable_seed(spec["seed"], "renoise", k, j, seed) for seed in seeds]
            )
            accumulate_renoised(
                pipeline, rollout, again, lambda z: share * self.objective.pull_again(z, pull.guide, originals, scale),
                leaf, index, spec["guidance"], self.gradient, size,
            )  # fmt: skip
        conditioning.backward(leaf)
        read = pull.read
        metrics = {name: value / self.plan.images for name, value in pull.losses.items()}
        metrics["face_found"] = float(read["found"].mean())
        prompt_index = np.array(iteration.prompt_index)
        for attribute in spec["align"]:
            metrics |= attribute_scores(attribute, read[attribute].argmax(1), read["found"], prompt_index)
        return metrics

    def _validate(self) -> None:
        """Measure the averaged adapter, which is the one that is saved."""
        if self.validation is None:
            return
        self.state.average.swap()
        scores = self.validation.measure()
        self.state.average.swap()
        for classifier, metrics in scores.items():
            self.state.log.add(self.state.iteration, "validation", metrics, classifier)
            shown = "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())
            log.info("validation at %d, %s: %s", self.state.iteration, classifier or "all", shown)

    def finish(self) -> None:
        """Write the averaged adapter, the log, the spec and where they come from."""
        inputs = {name: path for name, path in self.paths.inputs().items() if name != "run"}
        provenance = collect("finetune", self.spec, inputs=inputs, seeds={"run": self.spec["seed"]})
        run = self.paths.run
        self.state.log.write(run / "train_log.parquet", provenance)
        atomic_write_json(run / "spec.json", dict(self.spec))
        write_provenance(run / "provenance.json", provenance)
        self.state.average.swap()
        save_adapter(self.state.adapter, run / "adapter")
        self.state.average.swap()

    def _keep_graph(self) -> bool:
        """Whether sampling keeps the U-Net's graphs: as the spec says, or if they fit into half the free memory."""
        wanted = self.spec["gradient"].get("keep_graph", "auto")
        if wanted != "auto":
            return bool(wanted)
        gradient = self.spec["gradient"]
        steps = gradient.get("steps") or gradient.get("last") or max(self.spec["sampler_steps"])
        images = self.part.stop - self.part.start
        fits = graphs_fit(
            self.pipeline, self.plan.sets[0][0][0].text, self.padding, self.spec["guidance"], images * steps
        )
        return not self.group.any(not fits)
