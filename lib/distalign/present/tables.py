"""Tables as the paper prints them, from the tidy results."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import t

from distalign.config.metrics import COSTS, QUALITY, TAKES_TARGET, floor_of, split_column
from distalign.errors import UserError
from distalign.present import formats
from distalign.present.cells import Cell, Table, TableRow
from distalign.present.labels import better, number
from distalign.store.files import atomic_write_text
from distalign.store.parquet import to_table, write_table

CELLS = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("label", pa.string(), nullable=False),
        pa.field("run", pa.string(), nullable=False),
        pa.field("evaluation", pa.string(), nullable=False),
        pa.field("classifier", pa.string()),
        pa.field("metric", pa.string(), nullable=False),
        *(pa.field(name, pa.float64()) for name in ("value", "std", "low", "high")),
        pa.field("prompts", pa.int32()),
        pa.field("seeds", pa.int32(), nullable=False),
        *(pa.field(name, pa.float64()) for name in ("seed_std", "seed_low", "seed_high")),
        pa.field("floor", pa.float64()),
        pa.field("paper", pa.float64()),
        pa.field("paper_std", pa.float64()),
    ]
)


def build_table(name: str, spec: Mapping[str, Any], results: pa.Table) -> Table:
    """Fill a table.

    Args:
        name: of the table, as in config.yaml.
        spec: `Study.table_spec(name)`: title, columns, and rows with run, seeds, evaluation, classifier, label, group
            the paper's numbers, and with a column `takes_target` whether the method does.
        results: schema RESULTS, of all runs.

    Raises:
        UserError: a row's run has no results; lists what there is.
    """
    per_run = {
        (row["run"], row["seed"], row["evaluation"], row["classifier"], row["metric"]): row
        for row in results.to_pylist()
        if row["prompt_id"] is None
    }
    measured = {key[:3] for key in per_run}
    rows = []
    for entry in spec["rows"]:
        absent = [seed for seed in entry["seeds"] if (entry["run"], seed, entry["evaluation"]) not in measured]
        if absent:
            raise UserError(
                f"table {name}: no results for run {entry['run']!r}, seed {absent[0]}, evaluation "
                f"{entry['evaluation']!r}. Results hold: {_listing(measured)}. Run the workflow for it first."
            )
        cells = tuple(_cell(column, entry, per_run) for column in spec["columns"])
        row = (entry["label"], entry.get("group"), entry["run"], entry["evaluation"], len(entry["seeds"]), cells)
        rows.append(TableRow(*row))
    return Table(name, spec["title"], tuple(spec["columns"]), tuple(_mark_best(rows)))


def write_table_files(table: Table, paths: Iterable[Path], provenance: Mapping[str, Any]) -> None:
    """Write a table to every path, in the format its suffix names: parquet, csv, md, tex or html."""
    for path in map(Path, paths):
        if path.suffix == ".parquet":
            write_table(path, cell_table(table), CELLS, provenance)
        else:
            atomic_write_text(path, formats.FORMATS[path.suffix](table))


def cell_table(table: Table) -> pa.Table:
    """One line per cell, with everything that is known about it (schema CELLS)."""
    lines = [
        {
            "table": table.name,
            "row": index,
            "seeds": row.seeds,
            **{name: getattr(row, name) for name in ("group", "label", "run", "evaluation")},
            **{name: value for name, value in vars(cell).items() if name != "best"},
            "metric": split_column(cell.metric)[0],
        }
        for index, row in enumerate(table.rows)
        for cell in row.cells
    ]
    return to_table({name: [line[name] for line in lines] for name in CELLS.names}, CELLS)


def _cell(column: str, entry: Mapping[str, Any], per_run: Mapping[tuple[Any, ...], Mapping[str, Any]]) -> Cell:
    """Bring a run's seeds together.

    Seeds share their prompts, so the spread over prompts and the interval do not shrink with more seeds: they are the
    root mean square, and the mean ends, of the single seeds'. How much seeds differ stands beside them.
    """
    metric, reader = split_column(column)
    if metric == TAKES_TARGET:
        return Cell(column, value=float(entry[TAKES_TARGET]))
    classifier = (reader or entry["classifier"]) if "/" in metric else None
    found = [per_run.get((entry["run"], seed, entry["evaluation"], classifier, metric), {}) for seed in entry["seeds"]]
    floor = floor_of(metric)
    floors = [per_run.get((entry["run"], seed, entry["evaluation"], classifier, floor), {}) for seed in entry["seeds"]]
    values = _known(found, "value")
    squares = [value**2 for value in _known(found, "std")]
    paper = entry.get("paper", {}).get(column, {})
    return Cell(
        column,
        classifier,
        value=_mean(values),
        std=float(np.sqrt(np.mean(squares))) if squares else None,
        low=_mean(_known(found, "low")),
        high=_mean(_known(found, "high")),
        prompts=None if metric in (*QUALITY, *COSTS) else max((row["n"] for row in found if row), default=None),
        **_over_seeds(values),
        floor=_mean(_known(floors, "value")),
        paper=paper.get("mean"),
        paper_std=paper.get("std"),
    )


def _mark_best(rows: list[TableRow]) -> list[TableRow]:
    """Mark the best printed value of each column within a group of two rows or more; equal in print is equal."""
    marked = []
    for row in rows:
        peers = [other for other in rows if other.group == row.group]
        cells = []
        for index, cell in enumerate(row.cells):
            direction = better(cell.metric)
            values = [float(number(peer.cells[index].value)) for peer in peers if peer.cells[index].value is not None]
            best = False
            if direction and row.group and len(values) > 1 and cell.value is not None and len(set(values)) > 1:
                best = float(number(cell.value)) == (min(values) if direction == "lower" else max(values))
            cells.append(Cell(**{**vars(cell), "best": best}))
        marked.append(TableRow(**{**vars(row), "cells": tuple(cells)}))
    return marked


def _over_seeds(values: list[float]) -> dict[str, Any]:
    """Spread of seeds, and the 95% interval of their mean by Student's t."""
    if len(values) < 2:
        return {}
    deviation = float(np.std(values, ddof=1))
    half = float(t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
    mean = float(np.mean(values))
    return {"seed_std": deviation, "seed_low": mean - half, "seed_high": mean + half}


def _known(rows: list[Mapping[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows if row.get(name) is not None]


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _listing(measured: Iterable[tuple[Any, ...]]) -> str:
    return ", ".join(f"{run} (seed {seed}, {evaluation})" for run, seed, evaluation in sorted(measured)) or "nothing"
