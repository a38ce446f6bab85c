"""Figures: checks across their keys, and what each is drawn from."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from distalign.config.attributes import ATTRIBUTES
from distalign.config.checks import check_read
from distalign.config.expansion import Run
from distalign.config.metrics import attributes_of, metric_names
from distalign.config.models import (
    Config,
    ContactSheet,
    EvaluationSettings,
    Figure,
    GuidanceSweep,
    Preset,
    Tradeoff,
    TrainingCurves,
)
from distalign.config.models.figures import ImageFigure, RunFigure
from distalign.config.problems import Path, Problems, nearest
from distalign.config.specs import drop_none

if TYPE_CHECKING:
    from distalign.config.study import Study

Key = tuple[str, int, str]  # run, seed, evaluation


class FigureChecks:
    """Notes what is wrong with the figures of a configuration."""

    def __init__(
        self,
        config: Config,
        evaluations: Mapping[str, EvaluationSettings],
        runs: Mapping[str, Run],
        preset: Preset,
        file: str,
        problems: Problems,
    ) -> None:
        self.config, self.evaluations, self.runs = config, evaluations, runs
        self.preset, self.file, self.problems = preset, file, problems

    def check(self, names: frozenset[str]) -> None:
        """All figures; `names`: of all runs, also of those too wrong to be resolved."""
        for name, figure in self.config.figures.items():
            at: Path = ("figures", name)
            self._check_names(figure, at, names)
            if isinstance(figure, ImageFigure):
                self._check_attributes(figure, figure.attributes, (*at, "attributes"))
                if figure.evaluation in self.evaluations:
                    asked = [[attribute] for attribute in figure.attributes]
                    self._check_read(asked, figure.attributes, figure.evaluation, (*at, "attributes"))
            if isinstance(figure, GuidanceSweep):
                self._check_attributes(figure, figure.metrics, (*at, "metrics"))
                self._check_sweep(figure, at)

    def _check_names(self, figure: Figure, at: Path, runs: frozenset[str]) -> None:
        metrics, evaluations = metric_names(), self.config.evaluations
        known: dict[str, tuple[str, Iterable[str]]] = {
            "runs": ("no run of this name", runs),
            "tables": ("no table of this name", self.config.tables),
            "evaluation": ("no evaluation of this name", evaluations),
            "evaluations": ("no evaluation of this name", evaluations),
            "attributes": ("no attribute of this name", ATTRIBUTES),
            "metrics": ("no metric of this name", metrics),
            "preservation": ("no metric of this name", metrics),
            "bias": ("no measure of bias", [name for name in metrics if name.startswith(("bias/", "distance/"))]),
        }
        for key, (what, valid) in known.items():
            found = getattr(figure, key, [])
            places = {(*at, key): found} if isinstance(found, str) else _items((*at, key), found)
            for path, word in places.items():
                if word not in valid:
                    self.problems.unknown(self.file, path, what, word, valid)
        if isinstance(figure, RunFigure):
            for run, label in figure.labels.items():
                if run not in figure.runs:
                    message = f"the figure does not show this run{nearest(run, figure.runs)}"
                    self.problems.add(self.file, (*at, "labels", run), message, label)

    def _check_attributes(self, figure: ImageFigure | GuidanceSweep, given: list[str], at: Path) -> None:
        if not given and all(run in self.runs for run in figure.runs) and not aligned(figure.runs, self.runs):
            self.problems.add(self.file, at, "needed where none of the figure's runs aligns an attribute")

    def _check_sweep(self, figure: GuidanceSweep, at: Path) -> None:
        first: dict[float, str] = {}
        for path, name in _items((*at, "evaluations"), figure.evaluations).items():
            if name not in self.evaluations:
                continue
            evaluation = self.evaluations[name]
            reference = self.evaluations[next(iter(first.values()), name)]
            if evaluation.guidance in first:
                message = f"has the guidance of '{first[evaluation.guidance]}', {evaluation.guidance:g}, as well"
                self.problems.add(self.file, path, message, name)
            elif _prompts(evaluation) != _prompts(reference):
                self.problems.add(self.file, path, f"has other prompts than '{next(iter(first.values()))}'", name)
            first.setdefault(evaluation.guidance, name)
            asked = [attributes_of(metric) for metric in figure.metrics]
            self._check_read(asked, figure.metrics, name, (*at, "metrics"))

    def _check_read(self, asked: list[list[str]], words: list[str], evaluation: str, at: Path) -> None:
        judge = self.evaluations[evaluation].classifier
        check_read(list(enumerate(asked)), at, words, judge, self.preset, self.file, self.problems)


def aligned(names: Iterable[str], runs: Mapping[str, Run]) -> list[str]:
    """The attributes that any of some runs aligns, in the order of ATTRIBUTES."""
    found = {attribute for name in names for attribute in runs[name].settings.align}
    return [attribute for attribute in ATTRIBUTES if attribute in found]


def figure_spec(study: "Study", name: str) -> dict[str, Any]:
    """A figure with what it needs to be drawn: seeds of runs, targets, who judged, rows of tables."""
    figure = study.figures[name]
    spec = figure.model_dump()
    if isinstance(figure, Tradeoff):
        return drop_none({**spec, "rows": _rows(study, figure)})
    labels = _labels(study, figure)
    del spec["labels"]
    spec["runs"] = [{"run": run, "seeds": study.seeds(run), "label": labels[run]} for run in figure.runs]
    if isinstance(figure, ImageFigure):
        spec["classifier"] = study.evaluations[figure.evaluation].classifier
        spec["align"] = {run: study.runs[run].align for run in figure.runs}
        spec["attributes"] = figure.attributes or aligned(figure.runs, study.expanded)
    if isinstance(figure, GuidanceSweep):
        settings = {evaluation: study.evaluations[evaluation] for evaluation in figure.evaluations}
        spec["evaluations"] = [
            {"evaluation": evaluation, "guidance": it.guidance, "classifier": it.classifier}
            for evaluation, it in sorted(settings.items(), key=lambda item: item[1].guidance)
        ]
        spec["metrics"] = figure.metrics or [f"bias/{key}" for key in aligned(figure.runs, study.expanded)]
    return drop_none(spec)


def figure_images(study: "Study", name: str) -> list[Key]:
    """The evaluated images a figure is about, as (run, seed, evaluation)."""
    figure = study.figures[name]
    if isinstance(figure, Tradeoff):
        rows = _rows(study, figure)
        return list(dict.fromkeys((row["run"], seed, row["evaluation"]) for row in rows for seed in row["seeds"]))
    if isinstance(figure, ContactSheet):
        return [(run, study.seeds(run)[0], figure.evaluation) for run in figure.runs]
    if isinstance(figure, TrainingCurves):
        return []
    evaluations = figure.evaluations if isinstance(figure, GuidanceSweep) else [figure.evaluation]
    return [(run, seed, name) for run in figure.runs for seed in study.seeds(run) for name in evaluations]


def figure_logs(study: "Study", name: str) -> list[tuple[str, int]]:
    """The trainings a figure shows, as (run, seed)."""
    figure = study.figures[name]
    runs = figure.runs if isinstance(figure, TrainingCurves) else []
    return [(run, seed) for run in runs if study.finetuned(run) for seed in study.seeds(run)]


def _labels(study: "Study", figure: RunFigure) -> dict[str, str]:
    """What runs are called: as the figure says, or as in the first table that has them if that tells them apart.

    A group tells something of a run that is in no other group of its table.
    """
    called = {run: run for run in figure.runs}
    for table in reversed(list(study.tables.values())):
        groups: dict[str, list[str | None]] = {}
        for row in table.rows:
            groups.setdefault(row.run, []).append(row.group)
        for row in reversed(table.rows):
            if row.run in called:
                group = row.group if len(groups[row.run]) == 1 else None
                called[row.run] = f"{row.label} ({group})" if group else row.label
    called |= figure.labels
    words = list(called.values())
    return {run: word if words.count(word) == 1 else run for run, word in called.items()}


def _rows(study: "Study", figure: Tradeoff) -> list[dict[str, Any]]:
    """The rows of a figure's tables without the paper's numbers, the same images once, with the most seeds.

    A table without any group is a group itself, called as the table.
    """
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for table in figure.tables:
        spec = study.table_spec(table)
        grouped = any("group" in row for row in spec["rows"])
        for row in spec["rows"]:
            entry = {**row, "group": row.get("group") if grouped else spec["title"]}
            entry.pop("paper", None)
            known = found.setdefault((row["run"], row["evaluation"], row["classifier"]), entry)
            known["seeds"] = max(known["seeds"], row["seeds"], key=len)
    return list(found.values())


def _prompts(evaluation: EvaluationSettings) -> tuple[str, str]:
    return evaluation.prompt_set, evaluation.prompts


def _items(at: Path, words: Iterable[str]) -> dict[Path, str]:
    return {(*at, index): word for index, word in enumerate(words)}
