"""Whether a new run agrees with results kept from an earlier one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import binom

from distalign.errors import UserError
from distalign.store.files import sha256_file
from distalign.store.parquet import RESULTS, read_provenance, read_table, write_table

Key = tuple[str, str, str, str | None]  # run, evaluation, metric, classifier
EXPECTED = 0.05  # share of 95% intervals that miss by chance
CONFIDENCE = 0.99
FAR = 2.5  # times the tolerance: by chance once in a million
SAME_IN_PRINT = 0.005


@dataclass(frozen=True)
class Comparison:
    """One metric of a run, then and now. `tolerance`: how far apart the two may be by chance (see `compare`)."""

    key: Key
    reference: float
    reference_limits: tuple[float, float]
    value: float
    limits: tuple[float, float]

    @property
    def tolerance(self) -> float:
        """Root of the sum of squares of the two half widths that face each other, at least half a digit in print."""
        lower, upper = (self.reference, self.reference_limits), (self.value, self.limits)
        if lower[0] > upper[0]:
            lower, upper = upper, lower
        facing = np.hypot(lower[1][1] - lower[0], upper[0] - upper[1][0])
        return max(float(facing), SAME_IN_PRINT)

    @property
    def distance(self) -> float:
        """How far apart they are, in tolerances; more than 1: they disagree."""
        return abs(self.value - self.reference) / self.tolerance


@dataclass(frozen=True)
class Agreement:
    """All comparisons; `missing` and `new`: what only the reference, or only the new results have."""

    comparisons: tuple[Comparison, ...]
    missing: tuple[Key, ...]
    new: tuple[Key, ...]

    @property
    def disagreeing(self) -> list[Comparison]:
        """Those that are further apart than they may be by chance, the furthest first."""
        return sorted((it for it in self.comparisons if it.distance > 1), key=lambda it: -it.distance)

    @property
    def allowed(self) -> int:
        """How many of so many true agreements would look like disagreements by chance: a 99% bound."""
        return int(binom.ppf(CONFIDENCE, len(self.comparisons), EXPECTED))

    @property
    def agrees(self) -> bool:
        """Whether disagreements are no more than chance gives, and none is far."""
        wrong = self.disagreeing
        return len(wrong) <= self.allowed and all(it.distance <= FAR for it in wrong)


def compare(results: pa.Table, reference: pa.Table) -> Agreement:
    """Compare the run-level rows of two results (schema RESULTS), metric by metric.

    Two values agree if they differ by no more than the root of the sum of squares of their half widths: those of the
    95% intervals, on the sides that face each other. Seeds are averaged on either side. Rows without an interval
    (sampling floors) are left out, as they measure no model.

    Raises:
        UserError: the two are of different presets, or have nothing in common.
    """
    presets = [sorted(set(table["preset"].to_pylist())) for table in (results, reference)]
    if presets[0] != presets[1]:
        here, there = (", ".join(names) or "none" for names in presets)
        raise UserError(
            f"the results are of preset {here}, the reference is of preset {there}. Compare like with like."
        )
    now, then = _by_key(results), _by_key(reference)
    comparisons = [Comparison(key, *then[key], *now[key]) for key in then if key in now]
    if not comparisons:
        raise UserError("the results and the reference have no run and metric in common. Run the workflow for more.")
    return Agreement(
        tuple(comparisons),
        missing=tuple(key for key in then if key not in now),
        new=tuple(key for key in now if key not in then),
    )


def keep(results: Path, reference: Path) -> int:
    """Write the run-level rows of results to a reference file, with where the results came from; their number."""
    rows = _whole(read_table(results, RESULTS))
    if not rows.num_rows:
        raise UserError(f"{results}: no rows about whole runs, so there is nothing to keep. Run the workflow first.")
    provenance = {**read_provenance(results), "kept_from": {"results.parquet": sha256_file(results)}}
    write_table(reference, rows, RESULTS, provenance)
    return int(rows.num_rows)


def _whole(results: pa.Table) -> pa.Table:
    return results.filter(pc.is_null(results["prompt_id"]))


def _by_key(results: pa.Table) -> dict[Key, tuple[float, tuple[float, float]]]:
    """Value and limits of every metric of every run, mean over seeds."""
    groups: dict[Key, list[Mapping[str, Any]]] = {}
    for row in _whole(results).to_pylist():
        if None not in (row["value"], row["low"], row["high"]):
            key = (row["run"], row["evaluation"], row["metric"], row["classifier"])
            groups.setdefault(key, []).append(row)
    return {key: (_mean(rows, "value"), (_mean(rows, "low"), _mean(rows, "high"))) for key, rows in groups.items()}


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))
