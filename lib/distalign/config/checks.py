"""What no single key can tell: checks across settings, presets and tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from distalign.config.attributes import ATTRIBUTES, LABELLED, READER, combinable
from distalign.config.expansion import Run
from distalign.config.fingerprint import fingerprint
from distalign.config.loading import count_concepts
from distalign.config.methods import METHODS, UNCHANGED, is_finetuned
from distalign.config.metrics import attributes_of, metric_names, split_column
from distalign.config.models import Config, EvaluationSettings, Preset, RunSettings
from distalign.config.problems import ABSENT, Path, Problems, nearest
from distalign.config.processes import uneven
from distalign.config.specs import run_meaning
from distalign.secrets import find_secret

Finding = tuple[Path, str]


Prompts = Mapping[str, Mapping[str, Any]]  # prompt set -> split -> what makes its prompts


def check_secrets(raw: Any, problems: Problems, file: str) -> None:
    """Note the first secret in the content of a file, without saying it: settings are written into every result."""
    if found := find_secret(raw):
        path, what = found
        problems.add(file, path, f"holds {what}: secrets stay in the environment, settings are published with results")


def check_run(run: Run, preset: Preset, prompts: Prompts, problems: Problems) -> None:
    """Note what is wrong between the settings of a run, at the place where the setting was written."""
    settings = run.settings
    if settings.method not in METHODS:
        problems.unknown(*run.place(("method",)), "no method of this name", settings.method, METHODS)
    elif settings.method != UNCHANGED:
        own = _training if is_finetuned(settings.method) else _settings
        found = [*_aligned(settings), *own(settings), *_prompt_sets(settings, prompts), *_classifier(settings, preset)]
        found += _processes(settings, preset)
        for path, message in found:
            problems.add(*run.place(path), f"{message}{run.inherited(path)}", _value(settings, path))
        if unknown := [name for name in settings.prompt_sets if name not in preset.prompts]:
            problems.unknown(*run.place(("prompt_sets",)), "no prompt set of this name", unknown[0], preset.prompts)


def _prompt_sets(settings: RunSettings, prompts: Prompts) -> Iterator[Finding]:
    names, known = settings.prompt_sets, [prompts[name] for name in settings.prompt_sets if prompts.get(name)]
    if len(set(names)) < len(names):
        yield ("prompt_sets",), "the same prompt set is listed twice"
    elif len(known) == len(names):
        for split in ("train", "validation") if settings.validate_every else ("train",):
            missing = [name for name in names if split not in prompts[name]]
            if (split == "train" and missing) or len(missing) == len(names):
                yield ("prompt_sets",), f"prompt set '{missing[0]}' has no {split} split"
                return
        if not is_finetuned(settings.method):
            return
        count = sum(count_concepts(splits["train"]["concepts"]) for splits in known)
        if settings.prompts_per_step > count:
            yield ("prompts_per_step",), f"more than the {count} prompts to finetune on"


def _processes(settings: RunSettings, preset: Preset) -> Iterator[Finding]:
    if is_finetuned(settings.method) and (problem := uneven(settings.images_per_step, max(1, preset.job.gpu))):
        yield ("images_per_step",), problem


def _aligned(settings: RunSettings) -> Iterator[Finding]:
    if not settings.align:
        yield ("align",), f"a run of method '{settings.method}' needs an attribute to align"
    if not combinable(settings.align):
        yield ("align",), "race and race7 are two groupings of the same; align one of them"


def _settings(settings: RunSettings) -> Iterator[Finding]:
    """Settings of a method that is not finetuned, and the values it is to choose from."""
    method = METHODS[settings.method]
    listed: list[tuple[Path, Any]] = [(("settings", name), value) for name, value in settings.settings.items()]
    for name, values in settings.search.items():
        listed += [(("search", name, index), value) for index, value in enumerate(values)]
    for path, value in listed:
        name = str(path[1])
        if name not in method.settings:
            yield path[:2], f"method '{settings.method}' has no such setting{nearest(name, method.settings)}"
            continue
        try:
            method.model().model_validate({name: value})
        except ValidationError as error:
            yield path, error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
    for name, it in method.settings.items():
        if it.required and name not in {**settings.settings, **settings.search}:
            yield ("settings", name), f"needed by method '{settings.method}': {it.description}"
    if method.converted and settings.search:
        yield ("search",), f"method '{settings.method}' has nothing to choose from: its adapter is what the file says"
    if not method.takes_target_with(settings.settings):
        without = ", ".join(f"settings.{name}: {value}" for name, value in method.target_needs.items())
        unless = f" without {without}" if method.takes_target else ""
        for attribute, shares in settings.align.items():
            if len(set(shares.values())) > 1:
                yield (
                    ("align", attribute),
                    f"method '{settings.method}' cannot be given a target other than uniform{unless}",
                )


def _training(settings: RunSettings) -> Iterator[Finding]:
    images, prompts = settings.images_per_step, settings.prompts_per_step
    if images % prompts:
        yield ("images_per_step",), f"not divisible by prompts_per_step: {prompts}"
    if len(set(settings.train)) < len(settings.train):
        yield ("train",), "the same part is listed twice"
    if "prompt_prefix" in settings.train and len(settings.train) > 1:
        yield ("train",), "prompt_prefix is trained alone"
    if "prompt_prefix" in settings.train and settings.prefix_tokens is None:
        yield ("prefix_tokens",), "needed to train a prompt_prefix"
    if set(settings.train) - {"prompt_prefix"} and settings.rank is None:
        yield ("rank",), f"needed to train {' and '.join(settings.train)}"
    for key in ("settings", "search"):
        if getattr(settings, key):
            yield (key,), f"method '{settings.method}' has no settings of its own; its keys stand in the run"
    gradient = settings.gradient
    if gradient.damping is not None and gradient.weights != "exact":
        yield ("gradient", "damping"), f"only for weights: exact, not {gradient.weights}"
    if gradient.steps is not None and gradient.steps > min(settings.sampler_steps):
        yield ("gradient", "steps"), f"more than the fewest sampler_steps: {min(settings.sampler_steps)}"
    if gradient.steps is not None and gradient.weights == "exact":
        yield ("gradient", "steps"), "not for weights: exact, whose sweep passes every step"
    yield from _exact_chain(settings)
    if gradient.choice is not None and gradient.steps is None:
        yield ("gradient", "choice"), "says which steps; needs gradient.steps"
    if settings.targets == "batch_mean":
        for attribute, shares in settings.align.items():
            if not all(shares.get(name) for name in ATTRIBUTES[attribute]):
                yield ("targets",), f"batch_mean needs a share above 0 for every class of {attribute}"
    for key in ("agree", "face_region"):
        for attribute in settings.align.keys() - getattr(settings.loss, key).keys():
            yield ("loss", key), f"lacks the factor of {attribute}, which the run aligns"


def _exact_chain(settings: RunSettings) -> Iterator[Finding]:
    """Parts of the exact chain."""
    gradient = settings.gradient
    for key in ("last", "truncate", "renoise"):
        if getattr(gradient, key) is not None and gradient.weights != "exact":
            yield ("gradient", key), f"only for weights: exact, not {gradient.weights}"
    if gradient.last is not None and gradient.last > min(settings.sampler_steps):
        yield ("gradient", "last"), f"more than the fewest sampler_steps: {min(settings.sampler_steps)}"
    if gradient.last is not None and gradient.truncate is not None:
        yield ("gradient", "truncate"), "not together with last: both say where the chain begins"
    if gradient.renoise is not None and gradient.weights == "exact" and gradient.last != 1:
        yield ("gradient", "renoise"), "needs last: 1, as its further images pass one step only"


def _classifier(settings: RunSettings, preset: Preset) -> Iterator[Finding]:
    classifier = preset.classifiers.get(settings.classifier)
    if classifier is not None:
        for attribute in settings.align.keys() - classifier.labels.keys():
            yield ("align", attribute), f"classifier '{settings.classifier}' does not read {attribute}"


def check_same_meaning(runs: Mapping[str, Run], problems: Problems, file: str) -> None:
    """Note runs that say the same in other words."""
    first: dict[str, str] = {}
    for name, run in runs.items():
        other = first.setdefault(fingerprint(run_meaning(run.settings)), name)
        if other != name:
            problems.add(file, ("runs", name), f"means the same as run '{other}'; remove one")


def check_references(runs: Mapping[str, Run], preset: Preset, preset_file: str, problems: Problems) -> None:
    """Note names of classifiers and face data sets that the preset does not have."""
    for run in runs.values():
        if run.settings.method != UNCHANGED and run.settings.classifier not in preset.classifiers:
            place = run.place(("classifier",))
            problems.unknown(*place, "no classifier of this name", run.settings.classifier, preset.classifiers)
    for name, classifier in preset.classifiers.items():
        for attribute, dataset in classifier.labels.items():
            if dataset not in preset.faces:
                path = ("classifiers", name, "labels", attribute)
                problems.unknown(preset_file, path, "no face data set of this name", dataset, preset.faces)
            elif attribute not in LABELLED[source := preset.faces[dataset].source]:
                path = ("classifiers", name, "labels", attribute)
                others = ", ".join(other for other, labelled in LABELLED.items() if attribute in labelled)
                message = f"faces of source {source} have no such labels; those of {others} have"
                problems.add(preset_file, path, message, dataset)
    for key, user in (("bank", preset.bank), ("reader", preset.reader)):
        if user is not None and user.faces is not None and user.faces not in preset.faces:
            problems.unknown(preset_file, (key, "faces"), "no face data set of this name", user.faces, preset.faces)


def check_seeds(config: Config, problems: Problems, file: str) -> None:
    """Note seeds listed twice."""
    listed: dict[Path, Sequence[int]] = {("seeds",): config.seeds}
    listed |= {("runs", name, "seeds"): run["seeds"] for name, run in config.runs.items() if run.get("seeds")}
    for name, table in config.tables.items():
        rows = {("tables", name, "rows", index): row for index, row in enumerate(table.rows)}
        listed |= {(*at, "seeds"): row.seeds for at, row in rows.items() if row.seeds}
        inline = {at: row.run for at, row in rows.items() if isinstance(row.run, Mapping)}
        listed |= {(*at, "run", "seeds"): run["seeds"] for at, run in inline.items() if run.get("seeds")}
    for path, seeds in listed.items():
        for index, seed in enumerate(seeds):
            if seed in seeds[:index]:
                problems.add(file, (*path, index), "this seed is listed twice", seed)


def check_evaluations(
    evaluations: Mapping[str, EvaluationSettings], preset: Preset, prompts: Prompts, file: str, problems: Problems
) -> None:
    """Note evaluations on prompts or judged by a classifier that the preset does not have."""
    for name, evaluation in evaluations.items():
        at: Path = ("evaluations", name)
        if evaluation.prompt_set not in preset.prompts:
            path = (*at, "prompt_set")
            problems.unknown(file, path, "no prompt set of this name", evaluation.prompt_set, preset.prompts)
        elif (splits := prompts.get(evaluation.prompt_set)) and evaluation.prompts not in splits:
            message = f"prompt set '{evaluation.prompt_set}' has no such split; it has {', '.join(splits)}"
            problems.add(file, (*at, "prompts"), message, evaluation.prompts)
        if evaluation.classifier not in preset.classifiers:
            path = ("evaluations", name, "classifier")
            problems.unknown(file, path, "no classifier of this name", evaluation.classifier, preset.classifiers)


def check_tables(
    config: Config, evaluations: Mapping[str, EvaluationSettings], preset: Preset, file: str, problems: Problems
) -> None:
    """Note unknown evaluations, metrics and classifiers of tables, and attributes their classifier does not read."""
    readers = [*preset.classifiers, *([READER] if preset.reader else [])]
    for name, table in config.tables.items():
        at: Path = ("tables", name)
        columns = []
        for index, column in enumerate(table.columns):
            metric, classifier = split_column(column)
            path = (*at, "columns", index)
            if metric not in metric_names():
                problems.unknown(file, path, "no metric of this name", metric, metric_names())
            elif classifier is None:
                columns.append((index, attributes_of(metric)))
            elif classifier not in readers or not attributes_of(metric):
                readable = readers if attributes_of(metric) else []
                problems.unknown(file, path, "no classifier that reads this", classifier, readable)
            else:
                asked = [(index, attributes_of(metric))]
                check_read(asked, (*at, "columns"), table.columns, classifier, preset, file, problems)
        for index, row in enumerate(table.rows):
            if row.classifier in readers:
                check_read(columns, (*at, "columns"), table.columns, row.classifier, preset, file, problems)
            elif row.classifier is not None:
                path = (*at, "rows", index, "classifier")
                problems.unknown(file, path, "no classifier of this name", row.classifier, readers)
        used = {(*at, "evaluation"): table.evaluation}
        rows = enumerate(table.rows)
        used |= {(*at, "rows", index, "evaluation"): row.evaluation for index, row in rows if row.evaluation}
        for path, evaluation in used.items():
            if evaluation not in config.evaluations:
                problems.unknown(file, path, "no evaluation of this name", evaluation, config.evaluations)
            elif evaluation in evaluations:
                judge = evaluations[evaluation].classifier
                check_read(columns, (*at, "columns"), table.columns, judge, preset, file, problems)


def check_read(
    asked: Sequence[tuple[int, Sequence[str]]],
    at: Path,
    values: Sequence[str],
    judge: str,
    preset: Preset,
    file: str,
    problems: Problems,
) -> None:
    """Note the words, at places in a list, that ask for attributes which a classifier does not read."""
    classifier = preset.classifiers.get(judge)
    for index, attributes in asked:
        for attribute in attributes:
            if classifier is not None and attribute in ATTRIBUTES and attribute not in classifier.labels:
                message = f"classifier '{judge}' does not read {attribute}"
                problems.add(file, (*at, index), message, values[index])


def _value(settings: RunSettings, path: Path) -> Any:
    value: Any = settings.model_dump()
    for part in path:
        if not isinstance(value, Mapping) or value.get(part) is None:
            return ABSENT
        value = value[part]
    return value
