"""The card of a classifier: what it is for, what it is not, and how well it reads."""

from collections.abc import Mapping, Sequence
from typing import Any

from distalign.classifiers.models import Classifier
from distalign.config.attributes import ATTRIBUTES

USE = """\
It reads **perceived** attributes of a face in an image: what the picture shows, in the coarse classes of the study it
serves. It says nothing about who a person is. It was made to measure and to balance what an image generator paints,
over many images; it is not fit to judge, sort or identify people, and must not be used so. Two genders, four groups and
two ages are limits of the study, not statements about people.
"""


def card(classifier: Classifier, metrics: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    """Markdown text of the card, from the rows of `metrics.parquet` and the settings of the training."""
    parameters = sum(parameter.numel() for parameter in classifier.parameters())
    lines = [
        f"# Face attribute classifier ({', '.join(classifier.attributes)})",
        "",
        f"`{classifier.arch}`, {parameters:,} parameters, reads face crops of {classifier.chip_size} px "
        f"({classifier.expand:g} times the detected box).",
        "",
        USE,
        "All numbers are on held-out faces, which had no part in training.",
        "",
    ]
    for attribute in classifier.attributes:
        lines += _attribute(attribute, [row for row in metrics if row["attribute"] == attribute])
    lines += ["## Training", "", *_table(["setting", "value"], [[name, value] for name, value in settings.items()])]
    return "\n".join(lines) + "\n"


def _attribute(attribute: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Section of one attribute: accuracy and calibration, confusion matrix, accuracy of every group."""
    accuracies = {row["group"]: row for row in rows if row["metric"] == "accuracy"}
    calibration = next(row["value"] for row in rows if row["metric"] == "calibration_error")
    confusion = {(row["label"], row["predicted"]): row["value"] for row in rows if row["metric"] == "confusion"}
    classes = [name for name in ATTRIBUTES[attribute] if (name, name) in confusion]
    overall = accuracies["all"]
    return [
        f"## {attribute.capitalize()}",
        "",
        f"Accuracy {overall['value']:.2%} on {overall['n']:,} faces; expected calibration error {calibration:.3f}.",
        "",
        "Share of each class (rows) read as each class (columns):",
        "",
        *_table(
            ["", *ATTRIBUTES[attribute]],
            [[label, *(f"{confusion[label, other]:.3f}" for other in ATTRIBUTES[attribute])] for label in classes],
        ),
        "Accuracy in groups:",
        "",
        *_table(
            ["group", "accuracy", "faces"],
            [[group, f"{row['value']:.3f}", row["n"]] for group, row in accuracies.items() if group != "all"],
        ),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [*(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines), ""]
