"""Metrics over the classifier-free guidance scale the images were made with."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from distalign.config.metrics import QUALITY
from distalign.present.labels import heading
from distalign.present.style import INK, MUTED, RUN_COLOURS, styled
from distalign.present.tables import build_table

COLUMNS = 3
MARKERS = "osD^vPX"
SWEEP = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("evaluation", pa.string(), nullable=False),
        pa.field("guidance", pa.float64(), nullable=False),
        pa.field("seeds", pa.int32(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        *(pa.field(name, pa.float64()) for name in ("value", "low", "high", "floor")),
    ]
)


def guidance_sweep(
    runs: Mapping[str, Sequence[int]],
    evaluations: Sequence[Mapping[str, Any]],
    metrics: Sequence[str],
    results: pa.Table,
    title: str,
    labels: Mapping[str, str] | None = None,
) -> tuple[Figure, pa.Table]:
    """Draw one panel per metric, one line per run with its 95% interval as a band.

    Args:
        runs: seeds by run; the first is the one the others are compared with.
        evaluations: each with `evaluation`, `guidance` and the `classifier` bias is read by; by rising guidance.
        metrics: from left to right.
        results: schema RESULTS.
        title: of the figure.
        labels: what runs are called; the others by their names.

    Returns:
        the figure, and what it shows (schema SWEEP).

    Raises:
        UserError: a run has no results for an evaluation.
    """
    data = sweep_data(runs, evaluations, metrics, results, title)
    rows = data.to_pylist()
    with styled():
        lines, columns = ceil(len(metrics) / COLUMNS), min(COLUMNS, len(metrics))
        figure = Figure(figsize=(max(4.2, 0.3 + 2.4 * columns), 2.2 * lines + 0.8), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left")
        grid = list(figure.subplots(lines, columns, squeeze=False, sharex=True).flat)
        for place, axes in enumerate(grid):
            if place >= len(metrics):
                axes.remove()
                continue
            _draw(axes, [row for row in rows if row["metric"] == metrics[place]], list(runs))
            axes.set_title(heading(metrics[place]))
            if place + columns >= len(metrics):
                axes.set_xlabel("guidance scale", color=MUTED)
                axes.tick_params(labelbottom=True)
        called = [(labels or {}).get(run, run) for run in runs]
        styles = zip(called, RUN_COLOURS, MARKERS, strict=False)
        handles: list[Artist] = [Line2D([], [], color=c, marker=m, markersize=4, label=word) for word, c, m in styles]
        if any(row["floor"] is not None for row in rows):
            perfect = "a fair generator" if set(QUALITY).isdisjoint(metrics) else "a fair generator, or real pictures"
            handles.append(Line2D([], [], color=INK, linestyle=":", linewidth=0.9, label=perfect))
        figure.legend(handles=handles, loc="outside lower left", ncols=columns + 1)
    return figure, data


def sweep_data(
    runs: Mapping[str, Sequence[int]],
    evaluations: Sequence[Mapping[str, Any]],
    metrics: Sequence[str],
    results: pa.Table,
    title: str,
) -> pa.Table:
    """The numbers of the figure (schema SWEEP)."""
    entries = [
        {"run": run, "label": run, "seeds": list(seeds), **it} for run, seeds in runs.items() for it in evaluations
    ]
    table = build_table(title, {"title": title, "columns": list(metrics), "rows": entries}, results)
    lines = [
        {
            "guidance": float(entry["guidance"]),
            **{name: getattr(row, name) for name in ("run", "evaluation", "seeds")},
            **{name: getattr(cell, name) for name in ("metric", "value", "low", "high", "floor")},
        }
        for entry, row in zip(entries, table.rows, strict=True)
        for cell in row.cells
    ]
    return pa.Table.from_pylist(lines, schema=SWEEP)


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]], runs: Sequence[str]) -> None:
    for run, colour, marker in zip(runs, RUN_COLOURS, MARKERS, strict=False):
        own = [row for row in rows if row["run"] == run and row["value"] is not None]
        places, values = [row["guidance"] for row in own], [row["value"] for row in own]
        axes.plot(places, values, color=colour, marker=marker, markersize=4, markeredgecolor="white")
        known = [row for row in own if row["low"] is not None]
        lows, highs = [row["low"] for row in known], [row["high"] for row in known]
        axes.fill_between([row["guidance"] for row in known], lows, highs, color=colour, alpha=0.15, linewidth=0)
    floors: dict[float, list[float]] = {}
    for row in rows:
        if row["floor"] is not None:
            floors.setdefault(row["guidance"], []).append(row["floor"])
    if floors:
        axes.plot(
            list(floors), [np.mean(values) for values in floors.values()], color=INK, linestyle=":", linewidth=0.9
        )
    if rows[0]["metric"].startswith(("bias/", "distance/")):
        axes.set_ylim(bottom=0)
    places = sorted({row["guidance"] for row in rows})
    axes.set_xticks(places, [f"{place:g}" for place in places])
