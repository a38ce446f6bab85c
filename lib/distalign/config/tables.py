"""Tables with their rows resolved: runs written in place become runs, references to the paper become numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distalign.config.expansion import Expansion, Run, inline_name
from distalign.config.fingerprint import fingerprint
from distalign.config.models import Config, PaperNumbers, Row
from distalign.config.problems import Path, Problems
from distalign.config.specs import run_meaning

Numbers = Mapping[str, Mapping[str, float]]  # metric -> mean, and std where the paper gives it


@dataclass(frozen=True)
class TableRow:
    """A row of a table. `classifier`: who reads it, if not the evaluation's; `paper`: the paper's numbers for it."""

    run: str
    label: str
    evaluation: str
    group: str | None
    classifier: str | None
    seeds: tuple[int, ...]
    paper: Numbers


@dataclass(frozen=True)
class Table:
    """A table with its rows resolved to runs."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    target: Mapping[str, Mapping[str, float]] | None = None


class TableResolution:
    """Resolves the tables of a configuration. Runs written inside rows are added to `runs`."""

    def __init__(
        self, expansion: Expansion, runs: dict[str, Run], numbers: PaperNumbers, file: str, problems: Problems
    ) -> None:
        self.expansion, self.runs, self.file, self.problems = expansion, runs, file, problems
        self.numbers: dict[str, Numbers] = {
            f"{name}/{row}": {metric: number.model_dump(exclude_none=True) for metric, number in values.items()}
            for name, table in numbers.tables.items()
            for row, values in table.rows.items()
        }
        self.named = {fingerprint(run_meaning(run.settings)): name for name, run in reversed(runs.items())}

    def tables(self, config: Config) -> dict[str, Table]:
        """All tables; rows that could not be resolved are left out and noted."""
        resolved = {}
        for name, table in config.tables.items():
            rows = [
                self._row(row, ("tables", name, "rows", index), table.evaluation)
                for index, row in enumerate(table.rows)
            ]
            known = tuple(row for row in rows if row is not None)
            resolved[name] = Table(table.title, tuple(table.columns), known, table.target)
        return resolved

    def _row(self, row: Row, at: Path, evaluation: str) -> TableRow | None:
        if row.paper is not None and row.paper not in self.numbers:
            self.problems.unknown(self.file, (*at, "paper"), "no such numbers", row.paper, self.numbers)
        run = self._named(row.run, at) if isinstance(row.run, str) else self._inline(row.run, at)
        if run is None:
            return None
        paper = self.numbers.get(row.paper, {}) if row.paper else {}
        inline = row.run.get("seeds") if isinstance(row.run, Mapping) else None
        seeds = tuple(row.seeds or inline or self.runs[run].seeds)
        return TableRow(run, row.label or run, row.evaluation or evaluation, row.group, row.classifier, seeds, paper)

    def _named(self, name: str, at: Path) -> str | None:
        if name not in self.expansion.names:
            self.problems.unknown(self.file, (*at, "run"), "no run of this name", name, self.expansion.names)
        return name if name in self.runs else None

    def _inline(self, entry: Mapping[str, Any], at: Path) -> str | None:
        """The run's name: that of a run of equal meaning if there is one, so that nothing is computed twice."""
        name = inline_name(entry)
        if name in self.expansion.names:
            name = f"{name}.{fingerprint(entry)[:8]}"
        run = self.expansion.run(name, (*at, "run"), entry)
        if run is None:
            return None
        same = self.named.setdefault(fingerprint(run_meaning(run.settings)), name)
        self.runs.setdefault(same, run)
        return same
