"""Bias against what else changed in the images: one point per row of some tables."""

from collections.abc import Mapping, Sequence
from itertools import count, cycle
from math import ceil
from typing import Any

import pyarrow as pa
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from distalign.errors import UserError
from distalign.present.cells import Table
from distalign.present.labels import heading
from distalign.present.placement import place_labels
from distalign.present.style import FAINT, INK, MUTED, RUN_COLOURS, styled
from distalign.present.tables import build_table

COLUMNS = 2
MARKERS = "osD^vPX*"
KEY_LINE = 0.115  # inches
POINTS = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("evaluation", pa.string(), nullable=False),
        pa.field("classifier", pa.string(), nullable=False),
        pa.field("seeds", pa.int32(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("label", pa.string(), nullable=False),
        pa.field("number", pa.int32()),
        pa.field("metric", pa.string(), nullable=False),
        *(pa.field(name, pa.float64()) for name in ("value", "low", "high", "floor")),
        pa.field("preservation_metric", pa.string(), nullable=False),
        *(pa.field(f"preservation{name}", pa.float64()) for name in ("", "_low", "_high")),
    ]
)
Look = dict[str, Any]


def tradeoff(
    rows: Sequence[Mapping[str, Any]], bias: Sequence[str], preservation: str, results: pa.Table, title: str
) -> tuple[Figure, pa.Table]:
    """Draw one panel per measure of bias; groups of rows differ in colour and shape, and a number says which row it is.

    The original, whose similarity to itself says nothing, is a dashed line. Grey: what an exactly fair generator would
    score with as many images.

    Args:
        rows: of tables, as `Study.table_spec` gives them.
        bias: metrics of the horizontal axes.
        preservation: metric of the vertical axes.
        results: schema RESULTS.
        title: of the figure.

    Returns:
        the figure, and what it shows (schema POINTS).

    Raises:
        UserError: a row has no results, or no row has both metrics.
    """
    table = build_table(title, {"title": title, "columns": [*bias, preservation], "rows": rows}, results)
    data = point_data(table, [row["classifier"] for row in rows], bias, preservation)
    points = data.to_pylist()
    if not any(row["value"] is not None and row["preservation"] is not None for row in points):
        raise UserError(f"figure {title!r}: no row has both {' or '.join(bias)} and {preservation}")
    looks = _looks([row["group"] for row in points])
    with styled():
        lines, columns, key = ceil(len(bias) / COLUMNS), min(COLUMNS, len(bias)), _key(looks, points)
        height = max(3.1 * lines, KEY_LINE * len(key)) + 0.8
        figure = Figure(figsize=(7.2 if columns > 1 else 4.8, height), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left")
        grid = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
        for axes, metric in zip(grid, bias, strict=False):
            _draw(axes, [row for row in points if row["metric"] == metric], looks)
            axes.set_xlabel(heading(metric))
        for place, axes in enumerate(grid):
            if place >= len(bias):
                axes.remove()
            elif place % columns == 0:
                axes.set_ylabel(heading(preservation))
        figure.legend(handles=_legend(looks, points), loc="outside lower left", ncols=columns + 1)
        figure.legend(handles=key, loc="outside right upper", fontsize=6, labelspacing=0.25, handletextpad=0)
        for axes, metric in zip(grid, bias, strict=False):
            numbers: dict[tuple[float, float], list[str]] = {}  # rows of one run are at one place
            for row in points:
                if row["metric"] == metric and _is_point(row):
                    numbers.setdefault((row["value"], row["preservation"]), []).append(str(row["number"]))
            place_labels(axes, {place: ", ".join(own) for place, own in numbers.items()})
    return figure, data


def point_data(table: Table, classifiers: Sequence[str], bias: Sequence[str], preservation: str) -> pa.Table:
    """One line per row and measure of bias (schema POINTS); rows with a preservation are numbered, from 1."""
    lines, counter = [], count(1)
    for row, classifier in zip(table.rows, classifiers, strict=True):
        cells = {cell.metric: cell for cell in row.cells}
        other = cells[preservation]
        about = {name: getattr(row, name) for name in ("run", "evaluation", "seeds", "group", "label")}
        about["number"] = None if other.value is None else next(counter)
        beside = {"preservation": other.value, "preservation_low": other.low, "preservation_high": other.high}
        for metric in bias:
            numbers = {name: getattr(cells[metric], name) for name in ("value", "low", "high", "floor")}
            key = {"classifier": classifier, "metric": metric, "preservation_metric": preservation}
            lines.append({**about, **key, **numbers, **beside})
    return pa.Table.from_pylist(lines, schema=POINTS)


def _is_point(row: Mapping[str, Any]) -> bool:
    return row["value"] is not None and row["preservation"] is not None


def _looks(groups: Sequence[str | None]) -> dict[str | None, Look]:
    """Colour and shape of every group; rows outside any are grey."""
    shapes = zip(cycle(RUN_COLOURS[1:]), cycle(MARKERS[1:]), strict=False)  # of unlike lengths: many pairs
    looks: dict[str | None, Look] = {None: {"color": MUTED, "marker": MARKERS[0]}}
    for group in dict.fromkeys(group for group in groups if group is not None):
        looks[group] = dict(zip(("color", "marker"), next(shapes), strict=True))
    return looks


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]], looks: Mapping[str | None, Look]) -> None:
    axes.grid(axis="x")
    floors = [row["floor"] for row in rows if row["floor"] is not None]
    if floors:
        axes.axvspan(0, sum(floors) / len(floors), color=FAINT, alpha=0.5, linewidth=0)
    for row in rows:
        look = looks[row["group"]]
        if _is_point(row):
            x, y = row["value"], row["preservation"]
            interval: Look = {"color": look["color"], "linewidth": 0.6, "alpha": 0.5}
            if row["low"] is not None:
                axes.plot([row["low"], row["high"]], [y, y], **interval)
            if row["preservation_low"] is not None:
                axes.plot([x, x], [row["preservation_low"], row["preservation_high"]], **interval)
            axes.plot([x], [y], linestyle="", markersize=5, markeredgecolor="white", markeredgewidth=0.5, **look)
        elif row["value"] is not None:
            axes.axvline(row["value"], color=INK, linestyle="--", linewidth=0.9)
            style: Look = {"fontsize": 6.5, "color": INK, "ha": "center", "va": "bottom"}
            axes.text(row["value"], 1.01, row["label"], transform=axes.get_xaxis_transform(), **style)
    axes.set_xlim(left=0)
    axes.margins(y=0.12)


def _key(looks: Mapping[str | None, Look], points: Sequence[Mapping[str, Any]]) -> list[Artist]:
    """What the numbers say."""
    rows = {row["number"]: row for row in points if row["number"] is not None}
    return [
        Line2D([], [], linestyle="", markersize=4, label=f"{number}  {_named(row)}", **looks[row["group"]])
        for number, row in rows.items()
    ]


def _named(row: Mapping[str, Any]) -> str:
    """The label of a row; of one that is a bare number, with its group: `Rank 2`."""
    bare = not any(map(str.isalpha, row["label"]))
    return f"{row['group']} {row['label']}" if bare and row["group"] else str(row["label"])


def _legend(looks: Mapping[str | None, Look], points: Sequence[Mapping[str, Any]]) -> list[Artist]:
    handles: list[Artist] = [
        Line2D([], [], linestyle="", label=group, **look) for group, look in looks.items() if group is not None
    ]
    handles.append(Line2D([], [], color=INK, linewidth=0.6, label="95% interval"))
    if any(row["floor"] is not None for row in points):
        handles.append(Patch(color=FAINT, alpha=0.5, label="up to what a fair generator scores"))
    return handles
