"""Where a number of a table, or any file of results, comes from: `distalign explain FILE [--row R --column C]`.

Of a table's cell: its run, seeds, prompts and images. Of any file: the settings, code, packages and machine it was made
with, what that took, what it was made from, and the command that makes it again.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from distalign.errors import UserError
from distalign.store.parquet import read_provenance
from distalign.trace import words
from distalign.trace.artefacts import UNCHANGED, Artefact, Input, locate, model_record
from distalign.trace.words import say

DEEP = 12  # levels of files made from files; there are 7


def main(arguments: Sequence[str]) -> int:
    """Print the explanation.

    Raises:
        UserError: no such file, row, column or prompt, or a file that says nothing; names what there is.
    """
    parser = argparse.ArgumentParser(prog="distalign explain", description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="a file or folder below results/{preset}/")
    parser.add_argument("--row", help="of a table: a run, a label as the table prints it, or a number")
    parser.add_argument("--column", help="of a table: a metric, such as bias/gender")
    parser.add_argument("--prompt", help="of a table's cell: a prompt's id, to see its images one by one")
    parser.add_argument("--settings", action="store_true", help="print all settings too, as YAML")
    options = parser.parse_args(arguments)
    say(list(_lines(options)))
    return 0


def _lines(options: argparse.Namespace) -> Iterator[str]:
    try:
        artefact = locate(options.file)
    except UserError:
        if not _tells(options.file):
            raise
        yield from _elsewhere(options.file)
        return
    asked = [f"--{name}" for name in ("row", "column", "prompt") if getattr(options, name) is not None]
    if artefact.kind.what.startswith("table "):
        from distalign.trace.cells import explain_table  # scipy takes a second

        yield from explain_table(artefact, options.row, options.column, options.prompt)
    elif asked:
        raise UserError(f"{artefact.path}: {', '.join(asked)} is for tables: results/{{preset}}/tables/NAME.parquet.")
    else:
        yield f"{artefact.place}: {artefact.what}"
        yield from made(artefact)
        yield from tree([Input(artefact.place, "", artefact.path)], "made from", below_only=True)
    if options.settings:
        yield ""
        yield "settings"
        text = yaml.safe_dump(artefact.provenance.get("spec", {}), sort_keys=False, allow_unicode=True, width=100)
        yield from (f"  {line}" for line in text.splitlines())


def made(artefact: Artefact) -> Iterator[str]:
    """How a file was made, as aligned lines.

    Raises:
        UserError: nothing is recorded.
    """
    record = artefact.provenance
    if not record:
        yield from _model(artefact)
        return
    seeds = ", ".join(f"{name} {seed}" for name, seed in record.get("seeds", {}).items())
    lock = f"; environment lock {words.short(record['lock'])}" if record.get("lock") else ""
    packages = ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())
    rule = f"rule {artefact.rule}, " if artefact.rule else ""
    rows = [
        ["made by", f"{rule}stage {record.get('stage')}, version {record.get('stage_version')}"],
        ["settings", f"fingerprint {words.short(record.get('fingerprint', 'none'))}"],
        *([["seeds", seeds]] if seeds else []),
        ["code", words.code(record) + lock],
        ["packages", packages],
        ["machine", words.machine(record)],
        ["took", words.usage(artefact.usage)],
        ["again", artefact.again],
    ]
    yield ""
    yield from words.grid(rows, "  ")


def tree(inputs: Sequence[Input], title: str, below_only: bool = False) -> Iterator[str]:
    """What files were made from, and these from what, each once; with `below_only` without the files themselves."""
    rows = list(_branches(inputs, 0, set()))
    if below_only:
        rows = [[name[2:], *rest] for name, *rest in rows[1:]]
    if rows:
        yield ""
        yield title
        yield from words.grid(rows, "  ")


def _branches(inputs: Sequence[Input], depth: int, seen: set[Path]) -> Iterator[list[str]]:
    known = 0
    for it in inputs:
        state = it.state if it.sha256 else ""
        if it.path in seen and state == UNCHANGED:
            known += 1
            continue
        artefact = _artefact(it.path)
        name = "  " * depth + (artefact.place if artefact else _shown(it))
        yield [name, f"sha256 {words.short(it.sha256)}" if it.sha256 else "", state, _briefly(artefact)]
        if it.path and depth < DEEP:
            seen.add(it.path)
            yield from _branches(artefact.inputs if artefact else [], depth + 1, seen)
    if known:
        yield ["  " * depth + f"and {known} named above", "", UNCHANGED, ""]


def _artefact(path: Path | None) -> Artefact | None:
    try:
        return locate(path) if path is not None else None
    except UserError:
        return None


def _shown(it: Input) -> str:
    """The name of an input that is no result: where it stands below the repository, if it is there."""
    return it.name if it.path is None else f"{it.name} ({it.path.name})"


def _briefly(artefact: Artefact | None) -> str:
    if artefact is None:
        return ""
    if record := artefact.provenance:
        took = f", {words.seconds(artefact.usage['wall_seconds'])}" if artefact.usage else ""
        return f"{artefact.rule or record.get('stage')}, settings {words.short(record['fingerprint'])}{took}"
    known = model_record(artefact)
    shown = {name: known[name] for name in ("from", "repository", "id", "revision", "commit") if name in known}
    return ", ".join(words.short(value) if name == "commit" else str(value) for name, value in shown.items())


def _model(artefact: Artefact) -> Iterator[str]:
    known = model_record(artefact)
    if not known:
        raise UserError(
            f"{artefact.path}: {artefact.what}; nothing is recorded of where it comes from. What the workflow makes "
            "says so from its end on; a model of a directory or one that is still being made does not."
        )
    yield ""
    rows = [[name, str(value)] for name, value in known.items()]
    yield from words.grid([*rows, ["took", words.usage(artefact.usage)], ["again", artefact.again]], "  ")


def _tells(path: Path) -> bool:
    """Whether a Parquet file that is no result says where it comes from."""
    return path.is_file() and path.suffix == ".parquet" and bool(read_provenance(path))


def _elsewhere(path: Path) -> Iterator[str]:
    """A Parquet file that was copied out of the results: what it says itself."""
    record = read_provenance(path)
    yield f"{path}: made by stage {record.get('stage')}, kept outside of results/{{preset}}"
    rows = [
        ["settings", f"fingerprint {words.short(record.get('fingerprint', 'none'))}"],
        ["code", words.code(record)],
        ["packages", ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())],
        ["machine", words.machine(record)],
    ]
    rows += [["made from", f"{name}, sha256 {words.short(it)}"] for name, it in record.get("inputs", {}).items()]
    yield ""
    yield from words.grid(rows, "  ")
