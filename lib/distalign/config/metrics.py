"""Names of metrics, as columns of tables and in results: `bias/gender+race`, `frequency/age=old`, `clip_t`."""

from itertools import combinations

from distalign.config.attributes import ATTRIBUTES

PLAIN = ("clip_t", "clip_i", "dino", "face_found", "concept_readable")


def attribute_sets() -> list[str]:
    """Single and joint attributes: `gender`, `race`, ..., `gender+race`, ..."""
    sizes = range(1, len(ATTRIBUTES) + 1)
    return ["+".join(names) for size in sizes for names in combinations(ATTRIBUTES, size)]


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


def attributes_of(metric: str) -> list[str]:
    """The attributes a metric is about; none for those of `PLAIN`."""
    _, _, about = metric.partition("/")
    return about.partition("=")[0].split("+") if about else []
