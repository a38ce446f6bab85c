"""What metrics, attributes and prompts are called in print."""

from distalign.config.attributes import RACE7
from distalign.config.metrics import (
    INFERENCE_COST,
    INFERENCE_SECONDS,
    QUALITY,
    SECONDS,
    TAKES_TARGET,
    split_column,
)

ARROWS = {"lower": "↓", "higher": "↑", None: ""}
SHORT = {"gender": "Gender", "race": "Race", "age": "Age", RACE7: "Race (7)"}
INITIALS = {"gender": "G", "race": "R", "age": "A", RACE7: "R7"}
NARROW = {
    "middle_eastern": "M. eastern",
    "latino_hispanic": "latino",
    "east_asian": "E. asian",
    "southeast_asian": "S.E. asian",
}
PLAIN = {
    "clip_t": "CLIP-T",
    "clip_i": "CLIP-I",
    "dino": "DINO",
    "face_found": "Faces found",
    "concept_readable": "Concept readable",
    "kid": "KID ×1000",
    "fd_dino": "FD-DINO",
    SECONDS: "Seconds to fit",
    INFERENCE_COST: "Cost per image ×",
    INFERENCE_SECONDS: "Seconds per image",
    TAKES_TARGET: "Takes a target",
    "gradient_norm": "Gradient norm",
    "loss/align": "Alignment loss",
    "loss/image": "Image loss",
    "loss/face": "Face loss",
    "loss/preserve": "Preservation loss",
}


def class_label(name: str) -> str:
    """A class where there is little room: beside a bar, in a legend."""
    return NARROW.get(name, name)


def attribute_label(attribute: str) -> str:
    """`gender` is Gender, `gender+race` is G×R as in the paper."""
    names = attribute.split("+")
    return SHORT[names[0]] if len(names) == 1 else "×".join(INITIALS[name] for name in names)


def metric_label(metric: str) -> str:
    """Heading of a column or an axis; of `bias/gender@loss` with the classifier behind it."""
    metric, classifier = split_column(metric)
    if classifier is not None:
        return f"{metric_label(metric)} ({classifier})"
    kind, _, about = metric.partition("/")
    if metric in PLAIN:
        return PLAIN[metric]
    if kind == "frequency":
        return f"Freq. {about.replace('=', ' = ')}"
    if kind in ("distance", "target_distance"):
        return f"{attribute_label(about)} distance to target"
    if kind == "bias":
        return f"{attribute_label(about)} bias"
    return metric


def better(metric: str) -> str | None:
    """`lower` or `higher`; None where neither is."""
    kind = metric.partition("/")[0]
    if kind in ("bias", "distance") or metric in QUALITY:
        return "lower"
    return "higher" if metric in ("clip_t", "clip_i", "dino", "face_found", "concept_readable") else None


def heading(metric: str) -> str:
    """Label with the direction that is better: `Gender bias ↓`."""
    return f"{metric_label(metric)} {ARROWS[better(metric)]}".rstrip()


def number(value: float | None, digits: int | None = None) -> str:
    """`.23` as the paper prints it, `16.2` and `487` where numbers are large; nothing for a missing value."""
    if value is None:
        return ""
    digits = (2 if abs(value) < 10 else 1 if abs(value) < 100 else 0) if digits is None else digits
    text = f"{value:.{digits}f}"
    text = text.lstrip("-") if float(text) == 0 else text
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
