"""Training of face attribute classifiers."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from distalign.classifiers.augmentation import Augmentation, Augmenter, Reconstruct
from distalign.classifiers.evaluation import evaluate, write_evaluation
from distalign.classifiers.models import Classifier, build_classifier, save_classifier
from distalign.config.attributes import ATTRIBUTES, PAPER_ATTRIBUTES
from distalign.faces.dataset import UNKNOWN, FaceSet, load_faces, to_float
from distalign.faces.stored import in_advance

log = logging.getLogger(__name__)
WARM_UP = 0.05
Prepare = Callable[[Classifier], None]


@dataclass(frozen=True)
class TrainingSpec:
    """How a classifier is trained.

    Attributes:
        architecture: `convnet`, `resnet_small` or `mobilenet_v3_large`.
        chip_size: Side of the chips in pixels.
        expand: Side of a chip over the longer side of the detected box.
        epochs: Passes over the training split.
        batch_size: Faces per step.
        learning_rate: Peak rate of AdamW; linear warm-up over 5% of the steps, then half a cosine to 0.
        weight_decay: Of AdamW.
        label_smoothing: Share of the label spread over all classes.
        adversarial: Pixel change, in [-1, 1] units, by which each batch is first turned against the classifier (one
            signed gradient step from a random start; Wong et al., 2020); 0 is off. It doubles the cost, and makes
            gradients follow what a face looks like instead of patterns nobody sees.
        seed: Of initialisation, order and augmentation.
        augmentation: Strengths of the augmentation.
    """

    architecture: str
    chip_size: int
    expand: float
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    adversarial: float = 0.0
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)


def train_classifier(
    spec: TrainingSpec,
    faces: Mapping[str, Path],
    directory: Path,
    provenance: Mapping[str, Any],
    reconstruct: Reconstruct | None = None,
    device: torch.device | str = "cpu",
    prepare: Prepare | None = None,
) -> Classifier:
    """Train on the `train` splits, evaluate on the `validation` splits (used for nothing else), and write both.

    Writes `model.safetensors`, `metrics.parquet` and `card.md`. The same inputs on the same device give the same
    classifier.

    Args:
        spec: How to train.
        faces: Per attribute to read, the face Parquet that labels it.
        directory: Where to write.
        provenance: What to keep in the metadata of `metrics.parquet`.
        reconstruct: Maps images (n, 3, H, W) in [-1, 1] to the same (for instance a VAE with noise on its latents);
            applied to the share `augmentation.reconstruct` of each batch.
        device: Where to train; on a GPU, activations and their gradients are bfloat16 where autocast has it so.
        prepare: Changes the new classifier before it is trained: puts weights into it.

    Raises:
        UserError: unreadable or unfit face data, unknown architecture or attribute.
    """
    files: dict[Path, list[str]] = {}
    for attribute in sorted(faces, key=list(ATTRIBUTES).index):
        files.setdefault(Path(faces[attribute]), []).append(attribute)
    sets = [load_faces(path, "train", attributes) for path, attributes in files.items()]
    classifier = fit(spec, sets, reconstruct, device, prepare)
    shown = {path: dict.fromkeys([*PAPER_ATTRIBUTES, *names]) for path, names in files.items()}
    validation = {path: load_faces(path, "validation", names) for path, names in shown.items()}
    held_out = {attribute: validation[path] for path, names in files.items() for attribute in names}
    metrics = evaluate(classifier, held_out)
    save_classifier(directory, classifier)
    write_evaluation(
        directory, classifier, metrics, {**asdict(spec), "training_faces": sum(map(len, sets))}, provenance
    )
    return classifier


def fit(
    spec: TrainingSpec,
    sets: list[FaceSet],
    reconstruct: Reconstruct | None,
    device: torch.device | str,
    prepare: Prepare | None = None,
) -> Classifier:
    """Train one classifier on labelled sets, each batch from one of them; its heads are the sets' attributes."""
    attributes = [name for name in ATTRIBUTES if any(name in faces.labels for faces in sets)]
    generator = torch.Generator(device).manual_seed(spec.seed)
    order = torch.Generator().manual_seed(spec.seed)
    with torch.random.fork_rng():
        torch.manual_seed(spec.seed)
        classifier = build_classifier(spec.architecture, attributes, spec.chip_size, spec.expand)
    if prepare is not None:
        prepare(classifier)
    classifier = classifier.to(device).to(memory_format=torch.channels_last).train()
    augmenter = Augmenter(spec.chip_size, spec.expand, generator, spec.augmentation, reconstruct)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay)
    steps = spec.epochs * sum(math.ceil(len(faces) / spec.batch_size) for faces in sets)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    half = torch.autocast("cuda", torch.bfloat16, enabled=torch.device(device).type == "cuda")
    for epoch in range(spec.epochs):
        losses = []
        batches = list(_batches(sets, spec.batch_size, order))
        bar = tqdm(batches, desc=f"epoch {epoch + 1}/{spec.epochs}", leave=False, disable=None)
        for (faces, rows), images in in_advance(_images, bar):
            chips = augmenter(to_float(images.to(device)), faces.boxes[rows].to(device))
            labels = {name: label[rows].to(device) for name, label in faces.labels.items()}
            chips = chips.contiguous(memory_format=torch.channels_last)
            with half:
                if spec.adversarial:
                    chips = _turn_against(classifier, chips, labels, spec.adversarial, generator)
                loss = _loss(classifier(chips), labels, spec.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        log.info("epoch %d of %d: loss %.4f", epoch + 1, spec.epochs, torch.stack(losses).mean().item())
    return classifier.eval().requires_grad_(False)


def _images(batch: tuple[FaceSet, Tensor]) -> Tensor:
    faces, rows = batch
    return faces.images[rows]


def _turn_against(
    classifier: Classifier, chips: Tensor, labels: Mapping[str, Tensor], radius: float, generator: torch.Generator
) -> Tensor:
    """Chips moved within `radius` of themselves to where the classifier reads them worse."""
    start = torch.rand(chips.shape, generator=generator, device=chips.device) * 2 - 1
    moved = (chips + radius * start).requires_grad_()
    (gradient,) = torch.autograd.grad(_loss(classifier(moved), labels, 0.0), moved)
    change = (moved.detach() + 1.25 * radius * gradient.sign() - chips).clamp(-radius, radius)
    return (chips + change).clamp(-1, 1)


def _rate(step: int, steps: int) -> float:
    """Share of the peak learning rate at a step."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2


def _batches(sets: list[FaceSet], size: int, order: torch.Generator) -> Iterator[tuple[FaceSet, Tensor]]:
    """Every face once, in batches of one set each, both in random order."""
    parts = [(faces, rows) for faces in sets for rows in torch.randperm(len(faces), generator=order).split(size)]
    for index in torch.randperm(len(parts), generator=order).tolist():
        yield parts[index]


def _loss(logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], smoothing: float) -> Tensor:
    """Sum over attributes of the mean cross-entropy over the faces whose class is known."""
    terms = []
    for attribute, label in labels.items():
        total = F.cross_entropy(
            logits[attribute], label, ignore_index=UNKNOWN, reduction="sum", label_smoothing=smoothing
        )
        terms.append(total / (label != UNKNOWN).sum().clamp(min=1))
    return torch.stack(terms).sum()
