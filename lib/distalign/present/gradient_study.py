"""The paper's Figure 1 on a grid: losses of a soft prompt by estimator, and the size of each step's gradient."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from distalign.errors import UserError
from distalign.measure.gradient_study import CELL, INTERVAL, Values, by_cell, orders
from distalign.present.style import INK, MUTED, styled
from distalign.store.parquet import GRADIENT_STUDY, to_table

COLUMNS = 3
LOOKS: dict[str, dict[str, Any]] = {
    "exact": {"color": "#D55E00", "linestyle": "-"},
    "unstandardised": {"color": "#009E73", "linestyle": "--"},
    "adjusted": {"color": "#0072B2", "linestyle": "-."},
    "released": {"color": "#CC79A7", "linestyle": ":"},
}
NAMES = {"exact": "exact (naive DFT)", "unstandardised": "unstandardised ($A_t$ kept)"}

# Mean over runs and 90% interval of every sampler step's magnitude.
MAGNITUDES = pa.schema(
    [
        *(GRADIENT_STUDY.field(key) for key in (*CELL, "estimator")),
        pa.field("step", pa.int32(), nullable=False),
        pa.field("timestep", pa.int32(), nullable=False),
        *(pa.field(key, pa.float64()) for key in ("mean", "low", "high")),
        pa.field("n", pa.int32(), nullable=False),
    ]
)
Cells = Mapping[tuple[Any, ...], Mapping[str, Values]]


def gradient_figure(study: pa.Table, title: str) -> tuple[Figure, pa.Table]:
    """Draw a gradient study (schema GRADIENT_STUDY); returns the figure and what it shows.

    Raises:
        UserError: the study is empty.
    """
    losses, sizes = by_cell(study, "loss"), by_cell(study, "magnitude")
    if losses:
        return loss_figure(losses, title), study.filter(pc.equal(study["quantity"], "loss"))
    if sizes:
        data = magnitude_data(study)
        return magnitude_figure(sizes, data, title), data
    raise UserError(f"figure {title!r}: its study is empty; delete the study's file and run again")


def loss_figure(cells: Cells, title: str) -> Figure:
    """One panel per cell: thin lines are runs, thick ones their mean."""
    columns = min(COLUMNS, len(cells))
    with styled():
        lines = ceil(len(cells) / columns)
        figure = Figure(figsize=(max(5.0, 2.4 * columns), 2.0 * lines + 1.2), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left")
        grid = list(figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flat)
        for axes, (cell, curves) in zip(grid, cells.items(), strict=False):
            for name, values in curves.items():
                axes.plot(values, **LOOKS[name] | {"linestyle": "-"}, alpha=0.35, linewidth=0.6)
                axes.plot(values.mean(axis=1), **LOOKS[name])
            axes.set_title(_cell_label(*cell))
            axes.set_xlabel("iteration", color=MUTED)
            axes.set_ylim(bottom=0)
        for axes in grid[len(cells) :]:
            axes.remove()
        grid[0].set_ylabel("image loss (CLIP + DINO)", color=MUTED)
        handles = _handles(list(next(iter(cells.values()))))
        handles.append(Line2D([], [], color=INK, alpha=0.4, linewidth=0.6, label="single runs"))
        figure.legend(handles=handles, loc="outside lower left", ncols=2)
    return figure


def magnitude_figure(cells: Cells, data: pa.Table, title: str) -> Figure:
    """One row of panels per model and guidance, one column per number of steps; all share their axes."""
    rows = list(dict.fromkeys((backbone, guidance) for backbone, guidance, _ in cells))
    steps = list(dict.fromkeys(count for _, _, count in cells))
    drawn = data.to_pylist()
    with styled():
        size = (max(5.0, 1.0 + 2.1 * len(steps)), 1.4 * len(rows) + 1.6)
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(title, x=0.01, ha="left")
        grid = figure.subplots(len(rows), len(steps), squeeze=False, sharex=True, sharey=True)
        for line, (backbone, guidance) in zip(grid, rows, strict=True):
            for axes, count in zip(line, steps, strict=True):
                cell = (backbone, guidance, count)
                _draw_magnitudes(axes, [row for row in drawn if tuple(row[key] for key in CELL) == cell])
                _note_coupling(axes, cells[cell])
            line[0].set_ylabel(f"{backbone} model\nguidance {guidance:g}")
        for axes, count in zip(grid[0], steps, strict=True):
            axes.set_title(f"{count} steps")
        figure.supylabel("size of the step's part of the gradient", fontsize=8, color=MUTED)
        grid[0][0].set_yscale("log")
        grid[0][0].set_xlim(1000, 0)
        grid[-1][len(steps) // 2].set_xlabel("time step t (sampling goes from left to right)", color=MUTED)
        handles = _handles(list(next(iter(cells.values()))))
        handles.append(Patch(color=INK, alpha=0.15, label="90% of the runs"))
        figure.legend(
            handles=handles, loc="outside lower left", ncols=2, title=_largest_coupling(cells), alignment="left"
        )
    return figure


def magnitude_data(study: pa.Table) -> pa.Table:
    """The numbers of the magnitude figure (schema MAGNITUDES)."""
    chosen = study.filter(pc.equal(study["quantity"], "magnitude"))
    keys = zip(*(chosen[key].to_pylist() for key in (*CELL, "step", "timestep")), strict=True)
    timesteps = {tuple(key[:4]): key[4] for key in keys}
    lines = []
    for cell, estimators in by_cell(study, "magnitude").items():
        for name, values in estimators.items():
            low, high = np.percentile(values, INTERVAL, axis=1)
            for step, mean in enumerate(values.mean(axis=1)):
                at = (step, timesteps[(*cell, step)])
                lines.append((*cell, name, *at, mean, low[step], high[step], values.shape[1]))
    return to_table(dict(zip(MAGNITUDES.names, zip(*lines, strict=True), strict=True)), MAGNITUDES)


def _draw_magnitudes(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for name in dict.fromkeys(row["estimator"] for row in rows):
        own = [row for row in rows if row["estimator"] == name]
        times, means, low, high = (np.array([row[key] for row in own]) for key in ("timestep", "mean", "low", "high"))
        axes.fill_between(times, low, high, color=LOOKS[name]["color"], alpha=0.15, linewidth=0)
        axes.plot(times, means, **LOOKS[name])


def _coupling(sizes: Mapping[str, Values]) -> tuple[float, float, float] | None:
    """Exact over unstandardised at the first step: geometric mean over runs and 90% interval; None if one lacks."""
    if not {"exact", "unstandardised"} <= sizes.keys():
        return None
    powers = orders(sizes["exact"][0], sizes["unstandardised"][0])
    low, high = np.percentile(powers, INTERVAL)
    return float(10 ** powers.mean()), float(10**low), float(10**high)


def _note_coupling(axes: Axes, sizes: Mapping[str, Values]) -> None:
    factors = _coupling(sizes)
    if factors is not None:
        mean, low, high = (f"{factor:.2g}" for factor in factors)
        axes.set_title(f"B: {mean} [{low}, {high}]", loc="right", fontweight="normal", fontsize=7, color=MUTED)


def _largest_coupling(cells: Cells) -> str | None:
    """Lines under the figure: what B is, and where it is largest."""
    factors = {cell: found[-1] for cell, sizes in cells.items() if (found := _coupling(sizes)) is not None}
    if not factors:
        return None
    cell = max(factors, key=lambda key: factors[key])
    return (
        "B: exact over unstandardised at the first step (t near 1000), geometric mean [90% of the runs].\n"
        f"Its largest upper end is {factors[cell]:.2g}: {_cell_label(*cell)}."
    )


def _cell_label(backbone: str, guidance: float, steps: int) -> str:
    return f"{backbone} model, guidance {guidance:g}, {steps} steps"


def _handles(estimators: Sequence[str]) -> list[Any]:
    return [Line2D([], [], **LOOKS[name], label=NAMES.get(name, name)) for name in estimators]
