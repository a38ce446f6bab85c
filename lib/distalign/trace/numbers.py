"""The numbers of results, by what they are about, and which of two sets of them differ."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distalign.config.metrics import INFERENCE_SECONDS, SECONDS
from distalign.measure.agreement import Comparison
from distalign.present.tables import CELLS
from distalign.store.parquet import RESULTS, TRAIN_LOG, read_schema, read_table

Key = tuple[str, ...]
TIMES = (SECONDS, INFERENCE_SECONDS)  # of the machine: they differ between any two runs
# What a number is about, by the schema of its file.
ABOUT = (
    (RESULTS, ("run", "seed", "evaluation", "prompt_id", "classifier", "metric")),
    (CELLS, ("row", "group", "label", "run", "evaluation", "classifier", "metric")),
    (TRAIN_LOG, ("iteration", "phase", "classifier", "metric")),
)


@dataclass(frozen=True)
class Number:
    """A value with its 95% interval, where it has one; None is missing."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def same(self, other: "Number") -> bool:
        """To the last bit; two that are no number (nan) are the same."""
        pairs = zip((self.value, self.low, self.high), (other.value, other.low, other.high), strict=True)
        return all(a == b or (a is not None and b is not None and a != a and b != b) for a, b in pairs)


@dataclass(frozen=True)
class Difference:
    """A number that is another here than there."""

    key: Key
    before: Number
    after: Number

    @property
    def change(self) -> float | None:
        """By how much; None if only one side has it."""
        if self.before.value is None or self.after.value is None:
            return None
        return self.after.value - self.before.value

    @property
    def distance(self) -> float | None:
        """How far apart, in what both intervals allow by chance (`measure.agreement`); None without intervals."""
        sides = [(it.value, (it.low, it.high)) for it in (self.before, self.after)]
        if any(None in (value, *limits) for value, limits in sides):
            return None
        (value, limits), (other, others) = sides
        return Comparison(("", "", "", None), value, limits, other, others).distance  # type: ignore[arg-type]


@dataclass(frozen=True)
class Numbers:
    """Of a file: the names of what its numbers are about, and the numbers by that."""

    head: Key
    values: Mapping[Key, Number]


def read_numbers(path: Path, only: Mapping[str, Any] | None = None) -> Numbers | None:
    """The numbers of results, of a table or of a training log, without times; None for a file of another kind.

    Args:
        path: a Parquet file.
        only: read what has these values in these columns, which then are no part of what numbers are about.

    Raises:
        UserError: missing, damaged or no Parquet.
    """
    present = read_schema(path)
    for schema, about in ABOUT:
        if all(present.get_field_index(field.name) >= 0 for field in schema):
            table = read_table(path, schema)
            for column, value in (only or {}).items():
                table = table.filter(pc.equal(table[column], value))
            head = tuple(name for name in about if name not in (only or {}))
            return Numbers(head, _keyed(table, head))
    return None


def different(before: Numbers, after: Numbers) -> list[Difference]:
    """Every number that is not the same to the last bit: first those of whole runs, each by how far apart they are."""
    keys, none = dict.fromkeys([*before.values, *after.values]), Number(None)
    pairs = [(key, before.values.get(key, none), after.values.get(key, none)) for key in keys]
    found = [Difference(*pair) for pair in pairs if not pair[1].same(pair[2])]
    place = before.head.index("prompt_id") if "prompt_id" in before.head else None
    return sorted(found, key=lambda it: (place is not None and it.key[place] != "", -(it.distance or 0)))


def different_columns(before: pa.Table, after: pa.Table) -> list[list[str]]:
    """Of files with other rows: per column that differs, in how many rows, and the largest difference of numbers."""
    if before.num_rows != after.num_rows:
        return [["rows", f"{before.num_rows} and {after.num_rows}", ""]]
    found = []
    for name in dict.fromkeys([*before.column_names, *after.column_names]):
        if name not in before.column_names or name not in after.column_names:
            found.append([name, "only in one", ""])
            continue
        here, there = before[name].to_pylist(), after[name].to_pylist()
        rows = [(a, b) for a, b in zip(here, there, strict=True) if a != b and not (a != a and b != b)]
        if rows:
            found.append([name, f"in {len(rows)} of {before.num_rows} rows", _largest(rows)])
    return found


def _largest(rows: Collection[tuple[Any, Any]]) -> str:
    try:
        apart = [np.max(np.abs(np.asarray(a, float) - np.asarray(b, float))) for a, b in rows if None not in (a, b)]
    except (TypeError, ValueError):  # words, pictures
        return ""
    return f"by up to {max(apart):.3g}" if apart else ""


def _keyed(table: pa.Table, head: Key) -> dict[Key, Number]:
    rows = [row for row in table.to_pylist() if row["metric"] not in TIMES]
    return {_key(row, head): Number(*(row.get(name) for name in ("value", "low", "high"))) for row in rows}


def _key(row: Mapping[str, Any], head: Key) -> Key:
    return tuple("" if row[name] is None else str(row[name]) for name in head)
