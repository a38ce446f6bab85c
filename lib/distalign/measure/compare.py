"""Compare the results of a run with the reference that is kept for its preset, or keep them as the new reference.

`python -m distalign.measure.compare RESULTS... REFERENCE [--all | --keep | --add]`
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from distalign.errors import UserError
from distalign.measure.agreement import FAR, Agreement, Comparison, Key, compare, keep, whole_runs
from distalign.store.parquet import RESULTS, read_table

SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; 0 if the results agree with the reference, 1 if not or if either cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m distalign.measure.compare", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="results/{preset}/results.parquet, ablations.parquet")
    parser.add_argument("reference", type=Path, help="resources/reference/{preset}.parquet")
    parser.add_argument("--all", action="store_true", help="show every comparison, not only the disagreeing ones")
    parser.add_argument("--keep", action="store_true", help="write the results as the reference")
    parser.add_argument("--add", action="store_true", help="the same, and keep its rows of other runs and seeds")
    options = parser.parse_args(arguments)
    try:
        if options.keep or options.add:
            count = keep(options.results, options.reference, add=options.add)
            print(f"{options.reference}: {count} rows, from {', '.join(map(str, options.results))}")
            return 0
        if not options.reference.is_file():
            raise UserError(
                f"{options.reference}: there is no reference for this preset. Give another file, or keep the results "
                "of a full run as the reference with --keep."
            )
        agreement = compare(whole_runs(options.results), read_table(options.reference, RESULTS))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(report(agreement, options.all))
    return 0 if agreement.agrees else 1


def report(agreement: Agreement, everything: bool = False) -> str:
    """The comparison as text: a line per run and evaluation, the disagreements, and what it comes to."""
    wrong = agreement.disagreeing
    shown = sorted(agreement.comparisons, key=lambda it: -it.distance) if everything else wrong
    lines = _table([["run", "evaluation", "agree", "disagree", "furthest"], *_counts(agreement)])
    if shown:
        title = "Every comparison" if everything else "Further apart than both intervals allow"
        head = ["run", "evaluation", "metric", "classifier", "reference", "now", "may differ", "times"]
        lines += ["", f"{title}:", *_table([head, *map(_cells, shown)])]
    for what, keys in (("Only in the reference", agreement.missing), ("Not in the reference", agreement.new)):
        if keys:
            more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            lines += ["", f"{what}: {', '.join(map(_name, keys[:SHOWN]))}{more}."]
    count = len(agreement.comparisons)
    lines += [
        "",
        f"{count - len(wrong)} of {count} agree. By chance up to {agreement.allowed} would not, and none by more than "
        f"{FAR:g} times what it may differ: the results {'agree' if agreement.agrees else 'DO NOT AGREE'}.",
    ]
    return "\n".join(lines)


def _counts(agreement: Agreement) -> list[list[str]]:
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for it in agreement.comparisons:
        groups.setdefault(it.key[:2], []).append(it)
    rows = []
    for key, own in groups.items():
        wrong, furthest = sum(it.distance > 1 for it in own), max(own, key=lambda it: it.distance)
        rows.append([*key, str(len(own) - wrong), str(wrong), f"{furthest.distance:.2f} ({furthest.key[2]})"])
    return rows


def _cells(it: Comparison) -> list[str]:
    then, now = (
        f"{value:.3f} [{low:.3f}, {high:.3f}]"
        for value, (low, high) in ((it.reference, it.reference_limits), (it.value, it.limits))
    )
    return [*(part or "" for part in it.key), then, now, f"{it.tolerance:.3f}", f"{it.distance:.2f}"]


def _name(key: Key) -> str:
    run, evaluation, metric, classifier = key
    return f"{metric} of {run} on {evaluation}" + (f" by {classifier}" if classifier else "")


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


if __name__ == "__main__":
    sys.exit(main())
