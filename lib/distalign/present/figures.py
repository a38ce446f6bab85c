"""Every kind of figure of config.yaml: from its specification and its files to the drawing and its numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from matplotlib.figure import Figure

from distalign.measure.results import collect_results
from distalign.present.contact_sheet import contact_sheet
from distalign.present.frequencies import frequency_bars
from distalign.present.guidance import guidance_sweep
from distalign.present.tradeoff import tradeoff
from distalign.present.training_curves import training_curves
from distalign.store.parquet import CLASSIFIED, IMAGES, TRAIN_LOG, read_table

Spec = Mapping[str, Any]
Drawn = tuple[Figure, pa.Table]


@dataclass(frozen=True)
class FigureFiles:
    """What a figure is drawn from: training logs; images, classified, bias, quality files of the same evaluations."""

    train_logs: Sequence[Path] = ()
    images: Sequence[Path] = ()
    classified: Sequence[Path] = ()
    bias: Sequence[Path] = ()
    quality: Sequence[Path] = ()


def draw_figure(spec: Spec, files: FigureFiles) -> Drawn:
    """The figure of a specification (`Study.figure_spec`, and `read`: the attributes each classifier reads)."""
    return KINDS[spec["kind"]](spec, files)


def _training_curves(spec: Spec, files: FigureFiles) -> Drawn:
    logs = {(file.parts[-3], int(file.parts[-2])): read_table(file, TRAIN_LOG) for file in files.train_logs}
    return training_curves(logs, spec["title"], _labels(spec))


def _frequencies(spec: Spec, files: FigureFiles) -> Drawn:
    about = (spec["attributes"], spec["evaluation"], spec["classifier"], spec["align"], spec["title"])
    return frequency_bars(_results(spec, files), _seeds(spec), *about, spec.get("prompts"), _labels(spec))


def _contact_sheet(spec: Spec, files: FigureFiles) -> Drawn:
    schema = CLASSIFIED(spec["read"])
    pairs = zip(files.images, files.classified, strict=True)
    tables = [(read_table(a, IMAGES), read_table(b, schema)) for a, b in pairs]
    by_run = dict(zip(_seeds(spec), tables, strict=True))
    about = (spec["attributes"], spec["classifier"], spec["title"], spec.get("prompts"), spec.get("images", 8))
    return contact_sheet(by_run, *about, _labels(spec))


def _tradeoff(spec: Spec, files: FigureFiles) -> Drawn:
    return tradeoff(spec["rows"], spec["bias"], spec["preservation"], _results(spec, files), spec["title"])


def _guidance_sweep(spec: Spec, files: FigureFiles) -> Drawn:
    about = (spec["evaluations"], spec["metrics"], _results(spec, files), spec["title"])
    return guidance_sweep(_seeds(spec), *about, _labels(spec))


KINDS: dict[str, Callable[[Spec, FigureFiles], Drawn]] = {
    "training_curves": _training_curves,
    "frequencies": _frequencies,
    "contact_sheet": _contact_sheet,
    "tradeoff": _tradeoff,
    "guidance_sweep": _guidance_sweep,
}


def _results(spec: Spec, files: FigureFiles) -> pa.Table:
    return collect_results(files.bias, files.classified, spec["read"], measured=files.quality)


def _seeds(spec: Spec) -> dict[str, list[int]]:
    return {entry["run"]: entry["seeds"] for entry in spec["runs"]}


def _labels(spec: Spec) -> dict[str, str]:
    return {entry["run"]: entry["label"] for entry in spec["runs"]}
