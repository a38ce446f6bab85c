"""In which settings and numbers two results differ: `distalign diff A B`.

A and B are two runs (runs/RUN/SEED), two Parquet files, or two folders results/{preset}, of one clone or of two.
Seconds are left out: they differ between any two runs. Exit status 0: identical; 1: they differ; 2: not comparable.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distalign.config.differences import differences
from distalign.errors import UserError
from distalign.store.files import read_json
from distalign.store.parquet import read_provenance, read_schema, read_table
from distalign.trace import words
from distalign.trace.artefacts import digest
from distalign.trace.numbers import Difference, Numbers, different, different_columns, read_numbers

SHOWN = 20
RECORD = "provenance.json"
# What a folder of results is compared by: settings of all of these, numbers of those that have some of their own.
SETTINGS = (f"runs/*/*/{RECORD}", "*/**/*.parquet", "results.parquet", "claims.parquet")
MEASURED = ("results.parquet", "tables/*.parquet", "runs/*/*/train_log.parquet")


@dataclass
class Report:
    """What differs: settings by (setting, before, after) with the files they are of, numbers by file, and the rest."""

    settings: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    numbers: dict[str, tuple[Sequence[str], list[Difference]]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    made_by: dict[str, None] = field(default_factory=dict)
    specifications: int = 0
    compared: int = 0

    def add_settings(self, name: str, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Compare two provenance records; another commit, package or machine is noted, and is no difference."""
        self.specifications += 1
        for it in differences(before.get("spec", {}), after.get("spec", {})):
            self.settings.setdefault((it.place, it.before, it.after), []).append(name)
        versions = [record.get("versions", {}) for record in (before, after)]
        packages = [f"{key} {versions[0].get(key, 'none')} → {versions[1].get(key, 'none')}" for key in versions[0]
                    if versions[0][key] != versions[1].get(key)]  # fmt: skip
        pairs = [(word(before), word(after)) for word in (words.code, words.machine)]
        for text in [f"{a} → {b}" for a, b in pairs if a != b] + packages:
            self.made_by[text] = None

    def add_numbers(self, name: str, before: Numbers, after: Numbers) -> None:
        """Compare the numbers of a file."""
        self.compared += len(before.values.keys() | after.values.keys())
        if found := different(before, after):
            self.numbers[name] = (before.head, found)

    @property
    def differ(self) -> bool:
        """Whether anything does."""
        return bool(self.settings or self.numbers or self.others)


def main(arguments: Sequence[str]) -> int:
    """Print what differs.

    Raises:
        UserError: A and B are not of one kind, or cannot be read.
    """
    parser = argparse.ArgumentParser(prog="distalign diff", description=__doc__.partition("\n")[0])
    parser.add_argument("before", type=Path, metavar="A", help="a run, a Parquet file, or a folder results/{preset}")
    parser.add_argument("after", type=Path, metavar="B", help="another of the same kind")
    parser.add_argument("--all", action="store_true", help=f"every number, not only the first {SHOWN} of each file")
    options = parser.parse_args(arguments)
    report = compare(options.before, options.after)
    words.say(list(_lines(report, None if options.all else SHOWN)))
    return int(report.differ)


def compare(before: Path, after: Path) -> Report:
    """Compare two runs, two Parquet files or two folders of results.

    Raises:
        UserError: they are not of one kind, or cannot be read.
    """
    kinds = [_kind(path) for path in (before, after)]
    if kinds[0] != kinds[1]:
        raise UserError(
            f"{before} is {kinds[0]}, {after} is {kinds[1]}: there is nothing to compare. Give two of a kind."
        )
    report = Report()
    {"a run": _runs, "a Parquet file": _files, "a folder of results": _folders}[kinds[0]](report, before, after)
    return report


def _kind(path: Path) -> str:
    if path.is_file() and path.suffix == ".parquet":
        return "a Parquet file"
    if (path / RECORD).is_file():
        return "a run"
    if any((path / name).exists() for name in ("results.parquet", "tables", "runs", "bias")):
        return "a folder of results"
    missing = "no such file or folder" if not path.exists() else "neither of these"
    raise UserError(
        f"{path}: {missing}. Give a finished run (results/{{preset}}/runs/RUN/SEED), a Parquet file, or a folder of "
        "results (results/{preset})."
    )


def _files(report: Report, before: Path, after: Path) -> None:
    report.add_settings(before.name, read_provenance(before), read_provenance(after))
    here, there = read_numbers(before), read_numbers(after)
    if here and there and here.head == there.head:
        report.add_numbers(before.name, here, there)
        return
    tables = [read_table(path, read_schema(path)) for path in (before, after)]
    report.compared += tables[0].num_rows * tables[0].num_columns
    report.others += [" ".join(row).rstrip() for row in different_columns(*tables)]


def _runs(report: Report, before: Path, after: Path) -> None:
    report.add_settings("the run", read_json(before / RECORD), read_json(after / RECORD))
    _numbers(report, "train_log.parquet", before, after)
    _adapters(report, "adapter", before, after)
    here, there = _measured(before.absolute()), _measured(after.absolute())
    if here and there:
        report.add_numbers("results.parquet", here, there)


def _measured(run: Path) -> Numbers | None:
    """What the results beside a run say of it."""
    results = run.parents[2] / "results.parquet"
    if not results.is_file():
        return None
    found = read_numbers(results, {"run": run.parent.name, "seed": int(run.name)})
    return found if found and found.values else None


def _folders(report: Report, before: Path, after: Path) -> None:
    for pattern in SETTINGS:
        for name in _both(report, pattern, before, after):
            read = read_json if name.endswith(".json") else read_provenance
            report.add_settings(name, read(before / name), read(after / name))
    for pattern in MEASURED:
        for name in _both(None, pattern, before, after):
            _numbers(report, name, before, after)
    for name in _both(None, "runs/*/*/adapter", before, after):
        _adapters(report, name, before, after)


def _both(report: Report | None, pattern: str, before: Path, after: Path) -> list[str]:
    """The files of a pattern that both folders have; those that one has are noted."""
    names = [
        {path.relative_to(root).as_posix() for path in root.glob(pattern) if "state" not in path.parts}
        for root in (before, after)
    ]
    if report is not None:
        for root, own, other in ((before, names[0], names[1]), (after, names[1], names[0])):
            if only := sorted(own - other):
                report.others.append(f"only in {root}: {_some(only)}")
    return sorted(names[0] & names[1])


def _numbers(report: Report, name: str, before: Path, after: Path) -> None:
    here, there = read_numbers(before / name), read_numbers(after / name)
    if here and there:
        report.add_numbers(name, here, there)


def _adapters(report: Report, name: str, before: Path, after: Path) -> None:
    if (before / name).is_dir() and (after / name).is_dir() and digest(before / name) != digest(after / name):
        report.others.append(f"{name}: other weights")


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _lines(report: Report, most: int | None) -> Iterator[str]:
    if report.settings:
        yield "settings"
        rows = [[f"{place}: {old} → {new}", _some(names)] for (place, old, new), names in report.settings.items()]
        yield from words.grid(rows, "  ")
        yield ""
    for name, (head, found) in report.numbers.items():
        single = sum(not _whole(head, it) for it in found)
        yield f"numbers of {name}: {len(found)} differ" + (f", {single} of them of single prompts" if single else "")
        rows = [[*head, "A", "B", "by", "intervals"], *(_row(it) for it in found[:most])]
        kept = [index for index in range(len(rows[0])) if any(row[index] for row in rows[1:])]
        yield from words.grid([[row[index] for index in kept] for row in rows], "  ")
        if most is not None and len(found) > most:
            yield f"  and {len(found) - most} more (--all)"
        yield ""
    if report.others:
        yield "also"
        yield from (f"  {line}" for line in report.others)
        yield ""
    if report.made_by:
        yield "made by (no difference in itself)"
        yield from (f"  {line}" for line in report.made_by)
        yield ""
    yield _summary(report)


def _whole(head: Sequence[str], it: Difference) -> bool:
    """Whether a number is of a whole run, not of one prompt."""
    return "prompt_id" not in head or not it.key[list(head).index("prompt_id")]


def _row(it: Difference) -> list[str]:
    distance = it.distance
    allowed = "" if distance is None else "within" if distance <= 1 else f"apart, {distance:.1f} times"
    sides = [words.real(number.value) for number in (it.before, it.after)]
    return [*it.key, *sides, "" if it.change is None else f"{it.change:+.3g}", allowed]


def _summary(report: Report) -> str:
    if not report.differ:
        return f"identical: the settings of {report.specifications} files, {report.compared} numbers"
    found = [(head, it) for head, own in report.numbers.values() for it in own]
    far = sum(_whole(head, it) and (it.distance or 0) > 1 for head, it in found)
    return (
        f"they differ: in {len(report.settings)} settings and {len(found)} of {report.compared} numbers; {far} numbers "
        "of whole runs are further apart than both intervals allow"
        + (f"; {len(report.others)} other difference{'s' if len(report.others) > 1 else ''}" if report.others else "")
    )
