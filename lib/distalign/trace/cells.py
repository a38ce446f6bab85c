"""A table, and a cell of it down to prompts and images."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distalign.config.attributes import ATTRIBUTES
from distalign.config.metrics import (
    INFERENCE_COST,
    INFERENCE_SECONDS,
    QUALITY,
    SECONDS,
    TAKES_TARGET,
    attributes_of,
    split_column,
)
from distalign.errors import UserError
from distalign.measure.results import run_results, training_seconds
from distalign.present.tables import CELLS
from distalign.store.parquet import BIAS, CLASSIFIED, IMAGES, RESULTS, class_columns, read_table
from distalign.trace import words
from distalign.trace.artefacts import Artefact, Input, locate
from distalign.trace.explain import made, tree

Values = Mapping[str, Any]
CLOSE = 1e-9  # relative: the last digits may be another machine's


@dataclass(frozen=True)
class TableRow:
    """A row as the table's provenance has it. `number` counts from 1."""

    number: int
    entry: Values

    @property
    def title(self) -> str:
        """Label and group as the table prints them to a terminal."""
        group = self.entry.get("group")
        return f"{self.entry['label']} ({group})" if group else str(self.entry["label"])

    @property
    def listed(self) -> str:
        """For choosing."""
        entry = self.entry
        return f"{self.number}: {self.title}, run {entry['run']}, {entry['evaluation']}, by {entry['classifier']}"

    def called(self, name: str) -> bool:
        """Whether a user may mean this row."""
        return name in (str(self.number), self.title, self.entry["label"], self.entry["run"])


def explain_table(artefact: Artefact, row: str | None, column: str | None, prompt: str | None) -> Iterator[str]:
    """What a table shows and where that comes from: all of it, a row, a column, or one cell.

    Raises:
        UserError: no such row, column or prompt, or several rows of a name; lists what there is.
    """
    data = artefact.results / artefact.kind.record.format_map(artefact.names)  # type: ignore[union-attr]
    spec = artefact.provenance.get("spec")
    if not spec:
        raise UserError(
            f"{artefact.path}: {data.name}, which says where it comes from, is not beside it. Make it: {artefact.again}"
        )
    cells = read_table(data, CELLS).to_pylist()
    rows = [TableRow(index + 1, entry) for index, entry in enumerate(spec["rows"])]
    chosen, columns = _row(artefact, rows, row), _columns(artefact, spec["columns"], column)
    if prompt is not None and (chosen is None or column is None):
        raise UserError("--prompt is about one cell: give --row and --column too.")
    yield f"{artefact.place}: {artefact.what}, {spec['title']!r}"
    if chosen is not None and column is not None:
        own = cells[(chosen.number - 1) * len(spec["columns"]) + spec["columns"].index(column)]
        yield from _cell(artefact, spec, chosen, column, own, prompt)
        return
    yield from made(artefact)
    yield ""
    yield from _overview(rows if chosen is None else [chosen], columns, spec, cells)
    if chosen is not None:
        yield from tree(_sources(artefact, chosen, spec["columns"]), "made from")
    else:
        yield ""
        yield "One cell, down to its images: --row ROW --column METRIC. What a row was made from: --row ROW."


def _row(artefact: Artefact, rows: Sequence[TableRow], name: str | None) -> TableRow | None:
    if name is None:
        return None
    found = [row for row in rows if row.called(name)]
    exact = [row for row in found if name in (str(row.number), row.title)]
    if len(found) == 1 or len(exact) == 1:
        return found[0] if len(found) == 1 else exact[0]
    problem = f"{len(found)} rows are called {name!r}" if found else f"no row {name!r}"
    listed = "\n".join(f"  {words.printable(row.listed)}" for row in found or rows)
    raise UserError(f"{artefact.path}: {problem}. Name one by its number, its label, or its run:\n{listed}")


def _columns(artefact: Artefact, columns: Sequence[str], name: str | None) -> list[str]:
    if name is None:
        return list(columns)
    if name not in columns:
        raise UserError(f"{artefact.path}: no column {name!r}. There are: {', '.join(columns)}.")
    return [name]


def _overview(rows: Sequence[TableRow], columns: Sequence[str], spec: Values, cells: Sequence[Values]) -> Iterator[str]:
    lines = [["row", "label", "run", "seeds", *columns]]
    for row in rows:
        start = (row.number - 1) * len(spec["columns"])
        values = [words.real(cells[start + spec["columns"].index(column)]["value"]) for column in columns]
        seeds = " ".join(map(str, row.entry["seeds"]))
        lines.append([str(row.number), row.title, row.entry["run"], seeds, *values])
    yield from words.grid(lines, "  ")


def _cell(
    artefact: Artefact, spec: Values, row: TableRow, column: str, cell: Values, prompt: str | None
) -> Iterator[str]:
    entry, (metric, reader) = row.entry, split_column(column)
    classifier = (reader or entry["classifier"]) if "/" in metric else None
    interval = "" if cell["low"] is None else f", 95% interval [{words.real(cell['low'])}, {words.real(cell['high'])}]"
    spread = "" if cell["std"] is None else f" ± {words.real(cell['std'])} over prompts"
    lines = [
        ["cell", f"{column} of row {row.number}, {row.title}"],
        ["value", f"{words.real(cell['value'])}{spread}{interval}"],
        ["run", f"{entry['run']}, evaluation {entry['evaluation']}, seeds {', '.join(map(str, entry['seeds']))}"],
        *([["read by", classifier]] if classifier else []),
        *([["paper", f"{words.real(cell['paper'])} (Stable Diffusion 1.5)"]] if cell["paper"] is not None else []),
        ["again", artefact.again],
    ]
    yield ""
    yield from words.grid(lines, "  ")
    if metric == TAKES_TARGET:
        yield ""
        yield "  A property of the method, not a measurement: whether it can be given any target distribution."
        return
    found = {seed: _measured(artefact, spec, entry, seed, metric, classifier) for seed in entry["seeds"]}
    yield from _adds_up(cell, found)
    for seed, measured in found.items():
        yield from _prompts(seed, measured, metric)
        if prompt is not None:
            yield from _images(artefact, spec, entry, seed, prompt, metric, classifier)
        yield from _adapter(artefact, entry["run"], seed)
    yield from tree(_sources(artefact, row, [column]), "made from")


def _measured(
    artefact: Artefact, spec: Values, entry: Values, seed: int, metric: str, classifier: str | None
) -> list[dict[str, Any]]:
    """The rows of schema RESULTS of one seed that a cell is the mean of, made again from the files behind the table."""
    if metric == SECONDS:
        log = artefact.results / f"runs/{entry['run']}/{seed}/train_log.parquet"
        own = {**entry, "seeds": [seed]}
        return list(training_seconds([own], [log] if log.is_file() else []).to_pylist())
    folder = "quality" if metric in QUALITY else "cost" if metric in (INFERENCE_COST, INFERENCE_SECONDS) else "bias"
    file = _file(artefact, folder, entry, seed)
    if folder == "bias":
        seen = read_table(_file(artefact, "classified", entry, seed), CLASSIFIED(spec["read"]))
        table = run_results(read_table(file, BIAS), seen, spec.get("target"))
    else:
        table = read_table(file, RESULTS)
    return [row for row in table.to_pylist() if (row["metric"], row["classifier"]) == (metric, classifier)]


def _file(artefact: Artefact, folder: str, entry: Values, seed: int) -> Path:
    return artefact.results / f"{folder}/{entry['run']}/{seed}/{entry['evaluation']}.parquet"


def _adds_up(cell: Values, found: Mapping[int, Sequence[Values]]) -> Iterator[str]:
    """Whether the files there are now give the number that is printed."""
    values = [row["value"] for rows in found.values() for row in rows if row["prompt_id"] is None]
    known = [value for value in values if value is not None]
    mean = float(np.mean(known)) if known else None
    yield ""
    if mean is None and cell["value"] is None:
        yield "  Nothing was measured here."
    elif mean is None or cell["value"] is None or not math.isclose(mean, cell["value"], rel_tol=CLOSE, abs_tol=CLOSE):
        yield f"  The files that are there now give {words.real(mean)}: made anew since. Make the table again."
    else:
        yield "  Computed again from the files below: the same."


def _prompts(seed: int, measured: Sequence[Values], metric: str) -> Iterator[str]:
    """The value of every prompt, and what they have in common."""
    own = [row for row in measured if row["prompt_id"] is not None]
    yield ""
    if own:
        counts = "faces" if "/" in metric else "images"
        yield f"seed {seed}: mean over {len(own)} prompts (--prompt ID shows the images of one)"
        rows = [
            [row["prompt_id"], words.real(row["value"]), "" if row["n"] is None else f"{row['n']} {counts}"]
            for row in own
        ]
        yield from words.grid(rows, "  ")
        return
    for row in measured:
        unit = "updates" if metric == SECONDS else "images"
        yield f"seed {seed}: {words.real(row['value'])}, of {row['n']} {unit} together"


def _images(
    artefact: Artefact, spec: Values, entry: Values, seed: int, prompt: str, metric: str, classifier: str | None
) -> Iterator[str]:
    """The images of a prompt: the seed of each one's noise, and what was seen in it."""
    seen = read_table(_file(artefact, "classified", entry, seed), CLASSIFIED(spec["read"]))
    path = _file(artefact, "images", entry, seed)
    if prompt not in (ids := seen["prompt_id"].to_pylist()):
        raise UserError(f"{path}: no prompt {prompt!r}. There are: {', '.join(dict.fromkeys(ids))}.")
    own = [row for row in seen.to_pylist() if row["prompt_id"] == prompt]
    noises, text = dict[int, int](), ""
    if path.is_file():
        for row in read_table(path, IMAGES, ["prompt_id", "prompt", "index", "noise_seed"]).to_pylist():
            if row["prompt_id"] == prompt:
                noises[row["index"]], text = row["noise_seed"], row["prompt"]
    about = [name for name in attributes_of(metric) if name in spec["read"].get(classifier, [])]
    head = ["index", "noise seed", "face", *about, *([metric] if metric in seen.column_names else [])]
    lines = [head]
    for row in own:
        line = [str(row["index"]), str(noises.get(row["index"], "not here")), "yes" if row["found"] else "no"]
        line += [_class(row, attribute, classifier) for attribute in about]
        line += [_plain(row[name]) for name in head[3 + len(about) :]]
        lines.append(line)
    yield ""
    yield f"seed {seed}, prompt {prompt}: {text or 'its images are not here'}"
    yield from words.grid(lines, "  ")


def _adapter(artefact: Artefact, run: str, seed: int) -> Iterator[str]:
    """How the adapter behind a row was trained; nothing for the model as it is."""
    folder = artefact.results / f"runs/{run}/{seed}/adapter"
    if folder.exists():
        adapter = locate(folder)
        yield ""
        yield f"{adapter.place}: {adapter.what}"
        yield from list(made(adapter))[1:]


def _class(row: Values, attribute: str, classifier: str | None) -> str:
    """The class the classifier sees, with its probability."""
    columns = dict(zip(ATTRIBUTES[attribute], class_columns(attribute, classifier), strict=True))
    shares = {name: row[column] for name, column in columns.items()}
    if None in shares.values():
        return "–"
    best = max(shares, key=lambda name: shares[name])
    return f"{best} {shares[best]:.2f}"


def _plain(value: Any) -> str:
    return words.real(value) if isinstance(value, float) else "–" if value is None else "yes" if value else "no"


def _sources(artefact: Artefact, row: TableRow, columns: Sequence[str]) -> list[Input]:
    """The files that a row's columns were made from, with the hashes the table recorded of them."""
    recorded: dict[str, str] = artefact.provenance["inputs"]
    metrics = {split_column(column)[0] for column in columns}
    folders = ["bias", "classified", *(["quality"] if metrics & set(QUALITY) else [])]
    folders += ["cost"] if metrics & {INFERENCE_COST, INFERENCE_SECONDS} else []
    places = [
        f"{folder}/{row.entry['run']}/{seed}/{row.entry['evaluation']}.parquet"
        for seed in row.entry["seeds"]
        for folder in folders
    ]
    if SECONDS in metrics:
        places += [f"runs/{row.entry['run']}/{seed}" for seed in row.entry["seeds"]]
    found = [Input(place, recorded.get(place, ""), artefact.results / place) for place in places]
    return [it for it in found if it.sha256 or (it.path is not None and it.path.exists())]
