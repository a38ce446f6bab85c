"""How well a classifier reads held-out faces: overall, in every group, and whether its confidence is deserved."""

from collections.abc import Iterator, Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from distalign.classifiers.card import card
from distalign.classifiers.models import Classifier
from distalign.config.attributes import ATTRIBUTES, combinable
from distalign.faces.dataset import UNKNOWN, FaceSet
from distalign.store.files import atomic_write_text
from distalign.store.parquet import write_table

BATCH = 256
CALIBRATION_BINS = 15

# One row per number. group is `all` or, for example, `gender=female,age=old`; label and predicted are class words, null
# where the metric has none. accuracy: share read right; confusion: share of label read as predicted; calibration_error:
# expected calibration error.
METRICS = pa.schema(
    [
        pa.field("attribute", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("predicted", pa.string()),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("n", pa.int32(), nullable=False),
    ]
)

Row = dict[str, Any]


def evaluate(classifier: Classifier, held_out: Mapping[str, FaceSet]) -> list[Row]:
    """Rows of `METRICS` for a classifier.

    Args:
        classifier: What to evaluate.
        held_out: Per attribute, faces it was not trained on; all their labels name groups.
    """
    rows: list[Row] = []
    probabilities = {id(faces): predict(classifier, faces) for faces in {id(f): f for f in held_out.values()}.values()}
    for attribute, faces in held_out.items():
        rows += _rows(attribute, faces.labels, probabilities[id(faces)][attribute])
    return rows


@torch.no_grad()
def predict(classifier: Classifier, faces: FaceSet) -> dict[str, Tensor]:
    """Class probabilities (N, K) on the CPU of each attribute for every face of a set."""
    device = next(classifier.parameters()).device
    parts = []
    for rows in torch.arange(len(faces)).split(BATCH):
        chips = classifier.chips(faces.batch(rows).to(device), faces.boxes[rows].to(device))
        parts.append(classifier.probabilities(chips))
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in classifier.attributes}


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error of probabilities (N, K) for labels (N,), over equal-width bins of confidence."""
    confidence, predicted = probabilities.max(1)
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = confidence.double() - (predicted == labels).double()
    return float(torch.zeros(bins, dtype=torch.float64).index_add_(0, index, gap).abs().sum() / len(labels))


def write_evaluation(
    directory: Path,
    classifier: Classifier,
    metrics: list[Row],
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    """Write `metrics.parquet` and the card, `card.md`."""
    columns = {name: [row[name] for row in metrics] for name in METRICS.names}
    write_table(Path(directory) / "metrics.parquet", columns, METRICS, provenance)
    atomic_write_text(Path(directory) / "card.md", card(classifier, metrics, settings))


def _rows(attribute: str, labels: Mapping[str, Tensor], probabilities: Tensor) -> Iterator[Row]:
    """All rows about one attribute: accuracies of all groups, confusion matrix, calibration."""
    classes = ATTRIBUTES[attribute]
    truth, predicted = labels[attribute], probabilities.argmax(1)
    right = (predicted == truth).double()
    for group, members in _groups(labels):
        chosen = members & (truth != UNKNOWN)
        if chosen.any():
            yield _row(attribute, group, "accuracy", right[chosen].mean().item(), int(chosen.sum()))
    for label, other in product(range(len(classes)), repeat=2):
        chosen = truth == label
        if chosen.any():
            share = (predicted[chosen] == other).double().mean().item()
            yield _row(attribute, "all", "confusion", share, int(chosen.sum()), classes[label], classes[other])
    known = truth != UNKNOWN
    yield _row(
        attribute, "all", "calibration_error", calibration_error(probabilities[known], truth[known]), int(known.sum())
    )


def _row(
    attribute: str,
    group: str,
    metric: str,
    value: float,
    n: int,
    label: str | None = None,
    predicted: str | None = None,
) -> Row:
    values = (attribute, group, metric, label, predicted, value, n)
    return dict(zip(METRICS.names, values, strict=True))


def _groups(labels: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Names and members (N,) of all faces, of every class, and of every combination of classes."""
    yield "all", torch.ones(len(next(iter(labels.values()))), dtype=torch.bool)
    for size in range(1, len(labels) + 1):
        for names in filter(combinable, combinations(labels, size)):
            for indices in product(*(range(len(ATTRIBUTES[name])) for name in names)):
                pairs = list(zip(names, indices, strict=True))
                group = ",".join(f"{name}={ATTRIBUTES[name][index]}" for name, index in pairs)
                yield group, torch.stack([labels[name] == index for name, index in pairs]).all(0)
