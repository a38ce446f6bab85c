"""Names of metrics, as columns of tables and in results: `bias/gender+race`, `frequency/age=old`, `clip_t`."""

from itertools import combinations

from distalign.config.attributes import ATTRIBUTES, combinable

QUALITY = ("kid", "fd_dino")  # of all images of a run together, not per prompt
SECONDS = "seconds"  # of finetuning or fitting
INFERENCE_COST = "inference_cost"  # evaluations of the U-Net per image, relative to plain sampling
INFERENCE_SECONDS = "inference_seconds"  # per image
COSTS = (SECONDS, INFERENCE_COST, INFERENCE_SECONDS)  # partly of the machine, so only in tables that ask for them
TAKES_TARGET = "takes_target"  # whether the method can be given any target distribution
PLAIN = ("clip_t", "clip_i", "dino", "face_found", "concept_readable", *QUALITY, *COSTS, TAKES_TARGET)


def attribute_sets() -> list[str]:
    """Single and joint attributes: `gender`, `race`, ..., `gender+race`, ..."""
    sizes = range(1, len(ATTRIBUTES) + 1)
    sets = (names for size in sizes for names in combinations(ATTRIBUTES, size))
    return ["+".join(names) for names in sets if combinable(names)]


def metric_names() -> list[str]:
    """Every metric there is."""
    return [
        *(f"{kind}/{names}" for kind in ("bias", "distance") for names in attribute_sets()),
        *(f"frequency/{attribute}={name}" for attribute, classes in ATTRIBUTES.items() for name in classes),
        *PLAIN,
    ]


def split_column(column: str) -> tuple[str, str | None]:
    """Metric of a table's column and, after an `@`, the classifier it is read by: `bias/gender@loss`."""
    metric, _, classifier = column.partition("@")
    return metric, classifier or None


def floor_of(metric: str) -> str | None:
    """The metric that says what a fair generator, or real pictures, would score; None where there is none."""
    if metric in QUALITY:
        return f"floor/{metric}"
    return metric.replace("bias/", "floor/") if metric.startswith("bias/") else None


def attributes_of(metric: str) -> list[str]:
    """The attributes a metric is about; none for those of `PLAIN`."""
    _, _, about = metric.partition("/")
    return about.partition("=")[0].split("+") if about else []
