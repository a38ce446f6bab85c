"""Losses and bias during finetuning, with the validation points."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from math import ceil, isfinite
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from distalign.errors import UserError
from distalign.present.labels import metric_label
from distalign.present.style import INK, MUTED, RUN_COLOURS, styled
from distalign.store.parquet import TRAIN_LOG

COLUMNS = 3
KEY = (pa.field("run", pa.string(), nullable=False), pa.field("seed", pa.int64(), nullable=False))
CURVES = pa.schema([*KEY, *TRAIN_LOG])
LEFT_OUT = {"seconds"}
Look = dict[str, Any]


def training_curves(
    logs: Mapping[tuple[str, int], pa.Table], title: str, labels: Mapping[str, str] | None = None
) -> tuple[Figure, pa.Table]:
    """Draw one panel per metric, one colour per run, its seeds alike.

    Thin lines are single iterations, thick lines their running mean, marks are validation prompts, one shape for each
    classifier that measured them.

    Args:
        logs: schema TRAIN_LOG by (run, seed).
        title: of the figure.
        labels: what runs are called; the others by their names.

    Returns:
        the figure, and what it shows (schema CURVES).
    """
    data = curve_data(logs)
    labels, runs = labels or {}, list(dict.fromkeys(run for run, _ in logs))
    rows = [row for row in data.to_pylist() if row["value"] is not None and isfinite(row["value"])]
    metrics = _ordered({row["metric"] for row in rows} - LEFT_OUT)
    if not metrics:
        raise UserError(f"figure {title!r}: the training logs of {', '.join(runs)} are empty; was nothing trained?")
    markers = _markers({row["classifier"] for row in rows if row["phase"] == "validation"})
    colours = dict(zip(runs, cycle(RUN_COLOURS[1:]), strict=False))  # no grey: no run is the one compared with
    with styled():
        lines = ceil(len(metrics) / COLUMNS)
        figure = Figure(figsize=(7.2, 1.7 * lines + 1.0), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left")
        grid = list(figure.subplots(lines, COLUMNS, squeeze=False, sharex=True).flat)
        for axes, metric in zip(grid, metrics, strict=False):
            for run, seed in logs:
                own = [row for row in rows if (row["run"], row["seed"], row["metric"]) == (run, seed, metric)]
                _draw(axes, own, colours[run], markers)
            axes.set_title(metric_label(metric))
            axes.set_ylim(bottom=0)
        _label_iterations(grid, len(metrics))
        handles = [Line2D([], [], color=colour, label=labels.get(run, run)) for run, colour in colours.items()]
        handles.append(Line2D([], [], color=INK, alpha=0.4, linewidth=0.6, label="single iterations"))
        handles += [
            Line2D([], [], color=INK, label=f"validation, {name} classifier" if name else "validation", **look)
            for name, look in markers.items()
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=3)
    return figure, data


def curve_data(logs: Mapping[tuple[str, int], pa.Table]) -> pa.Table:
    """All logs in one table, with their run and seed (schema CURVES)."""
    tables = []
    for key, log in logs.items():
        columns = [pa.array([value] * log.num_rows, field.type) for value, field in zip(key, KEY, strict=True)]
        tables.append(pa.Table.from_arrays([*columns, *log.columns], names=CURVES.names))
    return pa.concat_tables(tables).cast(CURVES)


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Centred mean over `window` values (n,), over fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    start, stop = np.maximum(places - window // 2, 0), np.minimum(places + window // 2 + 1, len(values))
    return (sums[stop] - sums[start]) / (stop - start)


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]], colour: str, markers: Mapping[str | None, Look]) -> None:
    train = sorted((row["iteration"], row["value"]) for row in rows if row["phase"] == "train")
    if train:
        iterations, values = np.array(train).T
        axes.plot(iterations, values, color=colour, alpha=0.3, linewidth=0.6)
        axes.plot(iterations, running_mean(values, max(1, len(values) // 15)), color=colour)
    for classifier, look in markers.items():
        points = [row for row in rows if row["phase"] == "validation" and row["classifier"] == classifier]
        places, values = [row["iteration"] for row in points], [row["value"] for row in points]
        axes.plot(places, values, color=colour, **{"markerfacecolor": colour, **look})


def _markers(classifiers: set[str | None]) -> dict[str | None, Look]:
    """How validation points look: hollow where the classifier is the one in the loss, which may have been fooled."""
    looks: dict[str | None, Look] = {}
    for classifier, marker in zip(sorted(classifiers, key=lambda name: name or "~"), cycle("osD^v"), strict=False):
        looks[classifier] = {"marker": marker, "markersize": 3.5, "linestyle": ":", "linewidth": 0.8}
        if classifier == "loss":
            looks[classifier]["markerfacecolor"] = "white"
    return looks


def _label_iterations(grid: Sequence[Axes], used: int) -> None:
    """Remove panels left over; numbers under the lowest panel of each column, the word under the last line."""
    for place, axes in enumerate(grid):
        if place >= used:
            axes.remove()
        elif place >= used - COLUMNS:
            axes.tick_params(labelbottom=True)
        if place // COLUMNS == (used - 1) // COLUMNS and place < used:
            axes.set_xlabel("iteration", color=MUTED)


def _ordered(metrics: set[str]) -> list[str]:
    """Losses, bias, then the rest, each in a fixed order."""
    order = ["loss", "bias", "frequency", "target_distance", "face_found"]
    kinds = {metric: metric.partition("/")[0] for metric in metrics}
    return sorted(metrics, key=lambda metric: (order.index(kinds[metric]) if kinds[metric] in order else 99, metric))
