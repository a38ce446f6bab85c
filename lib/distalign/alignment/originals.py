"""What the frozen model makes of a plan's noises, computed once and shared by all runs of the plan.

The released code renders these images anew at every iteration of every run, for the image loss and its weights.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from distalign.alignment.plan import Iteration, TrainingPlan
from distalign.alignment.reading import FaceReader, WorldPaths, class_probabilities, load_reader
from distalign.diffusion.noise import initial_noise
from distalign.diffusion.pipeline import Pipeline, load_generator
from distalign.diffusion.probing import batch_sizes
from distalign.diffusion.sampler import decode, sample
from distalign.diffusion.text import encode_prompts
from distalign.errors import UserError
from distalign.prompts import load_split
from distalign.store.parquet import ORIGINALS, ParquetWriter, class_columns, read_table
from distalign.store.provenance import collect

log = logging.getLogger(__name__)
BOX = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class OriginalBatch:
    """Originals of B images; all on the device of the loss.

    Attributes:
        found: (B,) bool, whether a face was found.
        boxes: (B, 4); zeros without a face, as for all below.
        classes: (B,) most probable class of each attribute; -1 without a face.
        confidence: (B,) its probability.
        features: unit vectors (B, D) of each image encoder.
        face: unit vectors (B, E) of the face.
    """

    found: Tensor
    boxes: Tensor
    classes: dict[str, Tensor]
    confidence: dict[str, Tensor]
    features: dict[str, Tensor]
    face: Tensor


def compute_originals(spec: Mapping[str, Any], paths: WorldPaths, output: Path, device: torch.device) -> None:
    """Render every image of a plan with the frozen model and write what the losses need of them to `output`."""
    pipeline = load_generator(paths.backbone, spec, device)
    plan = TrainingPlan.from_spec(spec, load_split(paths.prompts, "train"))
    reader = load_reader(spec, paths, device)
    provenance = collect("originals", spec, inputs=paths.inputs(), seeds={"plan": plan.seed})
    write_originals(spec, plan, pipeline, reader, output, provenance)


@torch.no_grad()
def write_originals(
    spec: Mapping[str, Any],
    plan: TrainingPlan,
    pipeline: Pipeline,
    reader: FaceReader,
    output: Path,
    provenance: Mapping[str, Any],
) -> None:
    """`compute_originals` with everything loaded."""
    sizes = batch_sizes(spec["micro_batch"], pipeline, ("sample", "decode"))
    micro_batch = sizes["sample"]
    schema = ORIGINALS(reader.classifier.attributes)
    started = time.monotonic()
    with ParquetWriter(output, schema, provenance) as writer:
        for k in range(plan.period):
            iteration = plan.iteration(k)
            conditioning = encode_prompts(pipeline, [p.text for p in iteration.prompts], spec["text_padding"])
            noise = initial_noise(pipeline.latent_shape, iteration.noise_seeds)
            index = torch.tensor(iteration.prompt_index)
            guidance = spec["guidance"]
            rollout = sample(pipeline, noise, conditioning, index, iteration.steps, guidance, micro_batch)
            images = decode(pipeline, rollout.z0, sizes["decode"])
            writer.write(_rows(iteration, _look(reader, images, micro_batch)))
            log.info("originals %d/%d, %.1f s", k + 1, plan.period, time.monotonic() - started)


def _look(reader: FaceReader, images: Tensor, micro_batch: int) -> dict[str, np.ndarray]:
    """Columns of what is seen in images; face columns are masked where there is none."""
    parts = [_look_at(reader, chunk) for chunk in images.split(micro_batch)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    missing = ~columns["found"]
    for name, values in columns.items():
        if name not in ("found", *reader.encoders):
            mask = missing if values.ndim == 1 else np.repeat(missing[:, None], values.shape[1], axis=1)
            columns[name] = np.ma.array(values, mask=mask)
    return columns


def _look_at(reader: FaceReader, images: Tensor) -> dict[str, np.ndarray]:
    faces = reader.detect(images)
    columns: dict[str, Tensor] = {"found": faces.found, "score": faces.scores, "landmarks": faces.landmarks.flatten(1)}
    columns |= {name: faces.boxes[:, i] for i, name in enumerate(BOX)}
    for attribute, values in class_probabilities(reader.classifier, images, faces).items():
        columns |= {name: values[:, i] for i, name in enumerate(class_columns(attribute))}
    columns |= {name: encoder.encode_images(images) for name, encoder in reader.encoders.items()}
    columns["face"] = reader.embed(images, faces.landmarks)
    return {name: value.cpu().numpy() for name, value in columns.items()}


def _rows(iteration: Iteration, seen: Mapping[str, np.ndarray]) -> dict[str, Any]:
    n = len(iteration.noise_seeds)
    return {
        "iteration": np.full(n, iteration.slot, np.int32),
        "prompt_id": [iteration.prompts[p].id for p in iteration.prompt_index],
        "index": np.array(iteration.index, np.int32),
        "noise_seed": np.array(iteration.noise_seeds, np.int64),
        "sampler_steps": np.full(n, iteration.steps, np.int32),
        **seen,
    }


class Originals:
    """The originals of a plan, read from its Parquet file.

    Raises:
        UserError: the file is damaged, or of another plan.
    """

    def __init__(self, path: Path, plan: TrainingPlan, attributes: tuple[str, ...]) -> None:
        self.path = path
        self.attributes = attributes
        self.images = plan.images
        self.table = read_table(path, ORIGINALS(attributes)).combine_chunks()
        expected = [seed for k in range(plan.period) for seed in plan.iteration(k).noise_seeds]
        if self.table["noise_seed"].to_pylist() != expected:
            raise UserError(f"{path}: holds the originals of another plan; delete it and run again to make it anew")

    def batch(self, iteration: Iteration, part: slice, device: torch.device) -> OriginalBatch:
        """Originals of some images of an iteration."""
        rows = self.table.slice(iteration.slot * self.images, self.images).slice(part.start, part.stop - part.start)
        found = self._scalars(rows, ["found"])[:, 0].bool()
        classes, confidence = {}, {}
        for attribute in self.attributes:
            top = self._scalars(rows, class_columns(attribute)).max(dim=1)
            classes[attribute] = torch.where(found, top.indices, -1).to(device)
            confidence[attribute] = top.values.to(device)
        return OriginalBatch(
            found.to(device),
            self._scalars(rows, BOX).to(device),
            classes,
            confidence,
            {name: self._vectors(rows, name).to(device) for name in ("clip", "dino")},
            self._vectors(rows, "face").to(device),
        )

    @staticmethod
    def _scalars(rows: pa.Table, names: Any) -> Tensor:
        columns = [rows[name].cast(pa.float32()).fill_null(0).to_numpy() for name in names]
        return torch.from_numpy(np.stack(columns, axis=1))

    @staticmethod
    def _vectors(rows: pa.Table, name: str) -> Tensor:
        cells = rows[name].to_pylist()
        width = max((len(cell) for cell in cells if cell is not None), default=0)
        return torch.tensor([cell or [0.0] * width for cell in cells], dtype=torch.float32)
