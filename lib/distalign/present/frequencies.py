"""Class frequencies of every prompt, run beside run, with the target (the paper's figure 4)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from distalign.config.attributes import ATTRIBUTES
from distalign.errors import UserError
from distalign.present.labels import attribute_label, class_label
from distalign.present.style import INK, MUTED, RUN_COLOURS, styled

FREQUENCIES = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("attribute", pa.string(), nullable=False),
        pa.field("class", pa.string(), nullable=False),
        *(pa.field(name, pa.float64()) for name in ("frequency", "low", "high", "target")),
        pa.field("n_faces", pa.int32(), nullable=False),
        pa.field("seeds", pa.int32(), nullable=False),
    ]
)
Align = Mapping[str, Mapping[str, float]]
LONGEST = 60  # characters of a prompt's name


def frequency_bars(
    results: pa.Table,
    runs: Mapping[str, Sequence[int]],
    attributes: Sequence[str],
    evaluation: str,
    classifier: str,
    align: Mapping[str, Align],
    title: str,
    prompts: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> tuple[Figure, pa.Table]:
    """Draw one panel per class (of two classes only one: the other is the rest), one bar per prompt and run.

    Args:
        results: schema RESULTS.
        runs: seeds by run; the first is the one the others are compared with.
        attributes: shown from left to right.
        evaluation: whose images.
        classifier: whose predictions.
        align: target shares by run, {attribute: {class: share}}, drawn as a line. A run that does not align an
            attribute has the target of the others, if they agree; else uniform.
        title: of the figure.
        prompts: only the first so many.
        labels: what runs are called; the others by their names.

    Returns:
        the figure, and what it shows (schema FREQUENCIES).
    """
    data = frequency_data(results, runs, attributes, evaluation, classifier, align, prompts)
    rows = data.to_pylist()
    panels = [(name, value) for name in attributes for value in _shown(name)]
    names = _sorted_prompts(rows, panels[0], next(iter(runs)))
    words = [_shortened(name.replace("-", " ")) for name in names]
    with styled():
        width = max(4.2, 0.5 + 0.055 * max(map(len, words)) + 1.35 * len(panels))
        figure = Figure(figsize=(width, 1.3 + 0.11 * len(names) * (len(runs) + 0.7)), layout="constrained")
        grid = figure.subplots(1, len(panels), sharey=True, sharex=True, squeeze=False)[0]
        for axes, (attribute, value) in zip(grid, panels, strict=True):
            own = [row for row in rows if (row["attribute"], row["class"]) == (attribute, value)]
            _draw(axes, own, list(runs), names)
            axes.set_title(f"{attribute_label(attribute)}: {class_label(value)}")
        grid[len(panels) // 2].set_xlabel("share of images with a face", color=MUTED)
        grid[0].set_yticks(range(len(names)), words)
        grid[0].set_ylim(len(names) - 0.4, -0.6)
        called = [(labels or {}).get(run, run) for run in runs]
        handles: list[Artist] = [Patch(color=c, label=word) for word, c in zip(called, RUN_COLOURS, strict=False)]
        handles.append(Line2D([], [], color=INK, linestyle="--", linewidth=0.9, label="target"))
        handles.append(Line2D([], [], color=INK, linewidth=0.6, label="95% interval"))
        # On top, as the figure is long; the title is the legend's, since the layout would put the one over the other.
        head: dict[str, Any] = {"title": title, "title_fontproperties": {"size": 10, "weight": "bold"}}
        columns = len(handles) if len(panels) > 2 else 2
        figure.legend(handles=handles, loc="outside upper left", ncols=columns, alignment="left", borderpad=0, **head)
    return figure, data


def frequency_data(
    results: pa.Table,
    runs: Mapping[str, Sequence[int]],
    attributes: Sequence[str],
    evaluation: str,
    classifier: str,
    align: Mapping[str, Align],
    prompts: int | None = None,
) -> pa.Table:
    """The numbers of the figure, all classes of the attributes (schema FREQUENCIES).

    Of several seeds the mean, also of the ends of their intervals, as in tables; `n_faces` is their sum.
    """
    classes = {f"frequency/{name}={value}": (name, value) for name in attributes for value in ATTRIBUTES[name]}
    keys = [(run, seed) for run, seeds in runs.items() for seed in seeds]
    about = (evaluation, classifier)
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in results.to_pylist():
        here = row["prompt_id"] is not None and (row["evaluation"], row["classifier"]) == about
        if here and row["metric"] in classes and (row["run"], row["seed"]) in keys:
            found.setdefault((row["run"], row["prompt_id"], row["metric"]), []).append(row)
    measured = {(row["run"], row["seed"]) for rows in found.values() for row in rows}
    for run, seed in keys:
        if (run, seed) not in measured:
            raise UserError(
                f"no frequencies of {', '.join(attributes)} for run {run!r}, seed {seed}, in evaluation {evaluation!r}"
            )
    kept = list(dict.fromkeys(prompt for _, prompt, _ in found))[:prompts]
    lines = [
        {"run": run, "prompt_id": prompt, **_line(rows, *classes[metric], _target(run, *classes[metric], align))}
        for (run, prompt, metric), rows in found.items()
        if prompt in kept
    ]
    return pa.Table.from_pylist(lines, schema=FREQUENCIES)


def _target(run: str, attribute: str, value: str, align: Mapping[str, Align]) -> float:
    own = align.get(run, {}).get(attribute)
    others = {shares[attribute].get(value, 0.0) for shares in align.values() if attribute in shares}
    if own is not None:
        return own.get(value, 0.0)
    return others.pop() if len(others) == 1 else 1 / len(ATTRIBUTES[attribute])


def _line(rows: Sequence[Mapping[str, Any]], attribute: str, value: str, target: float) -> dict[str, Any]:
    known = [row for row in rows if row["value"] is not None]
    means = {name: float(np.mean([row[name] for row in known])) if known else None for name in ("value", "low", "high")}
    return {
        "attribute": attribute,
        "class": value,
        "frequency": means["value"],
        "low": means["low"],
        "high": means["high"],
        "target": target,
        "n_faces": sum(row["n"] for row in rows),
        "seeds": len(rows),
    }


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]], runs: Sequence[str], prompts: Sequence[str]) -> None:
    height = 0.8 / len(runs)
    for place, (run, colour) in enumerate(zip(runs, RUN_COLOURS, strict=False)):
        for row in (row for row in rows if row["run"] == run):
            level = prompts.index(row["prompt_id"]) + (place - (len(runs) - 1) / 2) * height
            if row["frequency"] is None:
                axes.text(0.02, level, "no face", va="center", fontsize=5, color=MUTED)
                continue
            axes.barh(level, row["frequency"], height, color=colour)
            axes.plot([row["low"], row["high"]], [level, level], color=INK, linewidth=0.6)
    targets = {row["run"]: row["target"] for row in rows}
    for run, colour in zip(runs, RUN_COLOURS, strict=False):
        shared = len(set(targets.values())) == 1
        axes.axvline(targets[run], color=INK if shared else colour, linestyle="--", linewidth=0.9)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def _shown(attribute: str) -> tuple[str, ...]:
    """Of two classes one says it all: the one the paper prints."""
    return {"gender": ("female",), "age": ("old",)}.get(attribute, ATTRIBUTES[attribute])


def _sorted_prompts(rows: Sequence[Mapping[str, Any]], panel: tuple[str, str], run: str) -> list[str]:
    """Prompts by falling frequency of the first panel's class in the first run."""
    first = [row for row in rows if (row["attribute"], row["class"]) == panel and row["run"] == run]
    return [row["prompt_id"] for row in sorted(first, key=lambda row: (-(row["frequency"] or 0.0), row["prompt_id"]))]


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1].rstrip()}…"
