"""A table as it is presented: rows of cells, each with spread, interval and the paper's number."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cell:
    """One column of one row: mean and standard deviation over prompts, 95% interval, and what the paper reports.

    With several seeds also the standard deviation over them, and the 95% interval of their mean by Student's t.
    """

    metric: str
    classifier: str | None = None
    value: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    prompts: int | None = None
    seed_std: float | None = None
    seed_low: float | None = None
    seed_high: float | None = None
    floor: float | None = None
    paper: float | None = None
    paper_std: float | None = None
    best: bool = False


@dataclass(frozen=True)
class TableRow:
    """A run under an evaluation."""

    label: str
    group: str | None
    run: str
    evaluation: str
    seeds: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table ready to be written in any format."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]

    def has_paper(self, metric: str) -> bool:
        """Whether any row has the paper's number for this column."""
        return any(cell.paper is not None for row in self.rows for cell in row.cells if cell.metric == metric)

    def floors(self) -> dict[str, float]:
        """What a fair generator, or real pictures, would score, per column that has a floor: mean over rows."""
        found = {
            metric: [
                cell.floor
                for row in self.rows
                for cell in row.cells
                if cell.metric == metric and cell.floor is not None
            ]
            for metric in self.columns
        }
        return {metric: float(np.mean(values)) for metric, values in found.items() if values}
