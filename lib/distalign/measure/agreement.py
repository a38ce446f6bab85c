"""Whether a new run agrees with results kept from an earlier one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import binom, t

from distalign.errors import UserError
from distalign.store.files import sha256_file
from distalign.store.parquet import RESULTS, read_provenance, read_table, write_table

Key = tuple[str, str, str, str | None]  # run, evaluation, metric, classifier
EXPECTED = 0.05  # share of 95% intervals that miss by chance
CONFIDENCE = 0.99
FAR = 2.5  # times the tolerance: by chance once in a million
SAME_IN_PRINT = 0.005
SIMILARITY = {"clip_i", "dino"}  # what only a run has that is compared with an original


@dataclass(frozen=True)
class Comparison:
    """One metric of a run, then and now. `tolerance`: how far apart the two may be by chance (see `compare`).

    `trainings`: how far apart two trainings may be, beyond what the intervals over prompts hold.
    """

    key: Key
    reference: float
    reference_limits: tuple[float, float]
    value: float
    limits: tuple[float, float]
    trainings: float = 0.0

    @property
    def tolerance(self) -> float:
        """Root of the sum of squares of the two half widths that face each other and of what trainings differ by.

        At least half a digit in print.
        """
        lower, upper = (self.reference, self.reference_limits), (self.value, self.limits)
        if lower[0] > upper[0]:
            lower, upper = upper, lower
        widths = (lower[1][1] - lower[0], upper[0] - upper[1][0], self.trainings)
        return max(float(np.linalg.norm(widths)), SAME_IN_PRINT)

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

    These intervals are over prompts, of one training. Another processor trains another model, as another seed does. So
    a third half width is added: that of the difference of two trainings, t(.975) s sqrt(1/n + 1/m) with n and m seeds
    on either side and s the standard deviation over seeds in the reference, pooled over all runs with several seeds
    that are compared with an original; the original's own is its own. Without seeds in the reference it is 0.

    Raises:
        UserError: the two are of different presets, or have nothing in common.
    """
    presets = [sorted(set(table["preset"].to_pylist())) for table in (results, reference)]
    if presets[0] != presets[1]:
        here, there = (", ".join(names) or "none" for names in presets)
        raise UserError(
            f"the results are of preset {here}, the reference is of preset {there}. Compare like with like."
        )
    now, then, spreads = _groups(results), _groups(reference), _Spreads(reference)
    comparisons = [
        Comparison(key, *_means(rows), *_means(now[key]), spreads.half_width(key, len(now[key]), len(rows)))
        for key, rows in then.items()
        if key in now
    ]
    if not comparisons:
        raise UserError("the results and the reference have no run and metric in common. Run the workflow for more.")
    return Agreement(
        tuple(comparisons),
        missing=tuple(key for key in then if key not in now),
        new=tuple(key for key in now if key not in then),
    )


def keep(results: Sequence[Path], reference: Path, add: bool = False) -> int:
    """Write the run-level rows of results to a reference file, with where they came from; how many it then has.

    With `add`, what the reference has of other runs, seeds or evaluations stays.
    """
    rows = whole_runs(results)
    if not rows.num_rows:
        named = ", ".join(map(str, results))
        raise UserError(f"{named}: no rows about whole runs, so there is nothing to keep. Run the workflow first.")
    provenance = {**read_provenance(results[0]), "kept_from": {path.name: sha256_file(path) for path in results}}
    if add and reference.is_file():
        rows = _joined([rows, read_table(reference, RESULTS)])
        provenance["added_to"] = read_provenance(reference)
    write_table(reference, rows, RESULTS, provenance)
    return int(rows.num_rows)


def whole_runs(files: Sequence[Path]) -> pa.Table:
    """The rows about whole runs of several files of results; of a run that two of them hold, the first one's."""
    return _joined([_whole(read_table(path, RESULTS)) for path in files])


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    parts: list[pa.Table] = []
    seen: set[tuple[Any, ...]] = set()
    for table in tables:
        keys = list(zip(*(table[name].to_pylist() for name in ("preset", "run", "seed", "evaluation")), strict=True))
        parts.append(table.filter(pa.array([key not in seen for key in keys], pa.bool_())))
        seen.update(keys)
    return pa.concat_tables(parts)


def _whole(results: pa.Table) -> pa.Table:
    return results.filter(pc.is_null(results["prompt_id"]))


class _Spreads:
    """How much every metric differs between the seeds of a reference."""

    def __init__(self, reference: pa.Table) -> None:
        values = {key: [row["value"] for row in rows] for key, rows in _groups(reference).items()}
        self._altered = {run for run, _, metric, _ in values if metric in SIMILARITY}
        self._sums: dict[Any, tuple[float, int]] = {}  # sum of squares and degrees of freedom
        for key, seen in values.items():
            squares, degrees = self._sums.get(self._pool(key), (0.0, 0))
            squares += float(np.sum((np.array(seen) - np.mean(seen)) ** 2))
            self._sums[self._pool(key)] = squares, degrees + len(seen) - 1

    def half_width(self, key: Key, seeds: int, kept: int) -> float:
        """Of a 95% interval of the difference between two means over so many trainings."""
        squares, degrees = self._sums[self._pool(key)]
        if not degrees:
            return 0.0
        return float(t.ppf(0.975, degrees) * np.sqrt(squares / degrees * (1 / seeds + 1 / kept)))

    def _pool(self, key: Key) -> object:
        """What shares its variance: a metric of all runs that are altered models, or of one that is not."""
        run, _, metric, classifier = key
        return (metric, classifier) if run in self._altered else (run, metric, classifier)


def _groups(results: pa.Table) -> dict[Key, list[Mapping[str, Any]]]:
    """The rows of whole runs that have an interval, one for each seed."""
    groups: dict[Key, list[Mapping[str, Any]]] = {}
    for row in _whole(results).to_pylist():
        if None not in (row["value"], row["low"], row["high"]):
            key = (row["run"], row["evaluation"], row["metric"], row["classifier"])
            groups.setdefault(key, []).append(row)
    return groups


def _means(rows: Sequence[Mapping[str, Any]]) -> tuple[float, tuple[float, float]]:
    """Value and limits, mean over seeds."""
    value, low, high = (float(np.mean([row[name] for row in rows])) for name in ("value", "low", "high"))
    return value, (low, high)
