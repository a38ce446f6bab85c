"""Claims, checked against the configuration and resolved to what a job can decide."""

import difflib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from distalign.config import files
from distalign.config.attributes import READER
from distalign.config.expansion import Run
from distalign.config.loading import salvage
from distalign.config.methods import is_finetuned
from distalign.config.metrics import attributes_of, metric_names
from distalign.config.models import EvaluationSettings, Preset
from distalign.config.models.claims import Claim, Claims, Quantity, ResultCheck, StudyCheck, TrainingCheck
from distalign.config.problems import Path as YamlPath
from distalign.config.problems import Problems
from distalign.config.specs import drop_none
from distalign.errors import UserError

CLAIMS_FILE = "resources/claims.yaml"
SIDES = ("value", "minus", "over")
Measured = Collection[tuple[str, str]]  # run, evaluation


def load_claims(
    root: Path, runs: Mapping[str, Run], evaluations: Collection[str], preset: Preset, problems: Problems
) -> Mapping[str, Claim]:
    """The claims of the paper, by name, checked against the configuration.

    Notes metrics and classifiers that do not exist, misspelt evaluations, and quantities that say too little. A run
    that config.yaml does not have is no mistake (the claim is undecided then), nor is an evaluation, unless its name
    is so near to one there is that it must be a slip.
    """
    try:
        raw = files.read_yaml(root / CLAIMS_FILE)
    except UserError as error:
        problems.add(CLAIMS_FILE, (), str(error))
        return {}
    loaded = salvage(Claims, raw, CLAIMS_FILE, problems)
    claims = loaded.claims if loaded else {}
    for path, check in _checks(claims):
        trained = runs.get(check.training) if isinstance(check, TrainingCheck) else None
        if trained is not None and not is_finetuned(trained.settings.method):
            message = "this run is not trained, so there is no log of its losses"
            problems.add(CLAIMS_FILE, (*path, "training"), message, check.training)
        if isinstance(check, ResultCheck):
            for place, quantity in _quantities(check):
                _check_quantity(check, quantity, (*path, *place), evaluations, preset, problems)
    return claims


def _checks(claims: Mapping[str, Claim]) -> Iterator[tuple[YamlPath, Any]]:
    for name, claim in claims.items():
        for index, check in enumerate(claim.checks):
            yield ("claims", name, "checks", index), check


def _quantities(check: ResultCheck) -> Iterator[tuple[YamlPath, Quantity]]:
    """The quantities of a check, each with its place in it: none for the bare name of a run."""
    for side in SIDES:
        written = getattr(check, side)
        if written is not None:
            yield ((side,), written) if isinstance(written, Quantity) else ((), Quantity(run=written))


def _check_quantity(
    check: ResultCheck,
    quantity: Quantity,
    path: YamlPath,
    evaluations: Collection[str],
    preset: Preset,
    problems: Problems,
) -> None:
    for key in ("metric", "evaluation"):
        if getattr(quantity, key) is None and getattr(check, key) is None:
            problems.add(CLAIMS_FILE, (*path, key), "given neither by the check nor by its quantity")
    for holder in (check, quantity):
        at = path if holder is quantity else path[:4]
        if holder.metric is not None and holder.metric not in metric_names():
            problems.unknown(CLAIMS_FILE, (*at, "metric"), "no metric of this name", holder.metric, metric_names())
        name = holder.evaluation
        if name is not None and name not in evaluations and difflib.get_close_matches(name, evaluations):
            problems.unknown(CLAIMS_FILE, (*at, "evaluation"), "no evaluation of this name", name, evaluations)
        readers = [*preset.classifiers, READER]
        if holder.classifier is not None and holder.classifier not in readers:
            path_to = (*at, "classifier")
            problems.unknown(CLAIMS_FILE, path_to, "no classifier of this name", holder.classifier, readers)


def claims_spec(
    claims: Mapping[str, Claim],
    runs: Collection[str],
    evaluations: Mapping[str, EvaluationSettings],
    measured: Measured,
    studies: Collection[str],
) -> dict[str, Any]:
    """What the decisions depend on, besides the results: every claim with its checks, complete.

    Args:
        claims: as `load_claims` gives them.
        runs: those of config.yaml.
        evaluations: those of config.yaml.
        measured: (run, evaluation) of every row of the paper's tables; a claim about others is undecided.
        studies: gradient studies of config.yaml that the preset has a budget for.

    Returns:
        claim -> `claim`, `place`, `note` and `checks`; each check has a `kind` (results, training or study) and, if
        something it needs is not there, `missing`, which says what.
    """
    spec = {}
    for name, claim in claims.items():
        checks = []
        for check in claim.checks:
            bounds = check.model_dump(include={"says", "below", "above", "between"})
            if isinstance(check, ResultCheck):
                resolved = _results(check, evaluations)
                missing = _absent(_named(resolved), runs, evaluations, measured)
            elif isinstance(check, TrainingCheck):
                resolved = {"kind": "training", **check.model_dump(include={"training", "metric", "by", "window"})}
                missing = _untrained(check.training, runs, measured)
            else:
                resolved = {"kind": "study", **_study(check)}
                missing = [] if check.study in studies else [f"gradient study {check.study} is not made here"]
            checks.append({**bounds, **resolved, "missing": "; ".join(missing) or None})
        spec[name] = {**claim.model_dump(include={"claim", "place", "note"}), "checks": checks}
    result: dict[str, Any] = drop_none(spec)
    return result


def trainings(spec: Mapping[str, Any]) -> list[str]:
    """The runs whose training logs a resolved specification needs."""
    return _needed(spec, "training")


def studies_of(spec: Mapping[str, Any]) -> list[str]:
    """The gradient studies whose results a resolved specification needs."""
    return _needed(spec, "study")


def _needed(spec: Mapping[str, Any], kind: str) -> list[str]:
    checks = [check for claim in spec.values() for check in claim["checks"] if not check.get("missing")]
    return list(dict.fromkeys(check[kind] for check in checks if check["kind"] == kind))


def _results(check: ResultCheck, evaluations: Mapping[str, EvaluationSettings]) -> dict[str, Any]:
    sides = [side for side in SIDES if getattr(check, side) is not None]
    quantities = [quantity for _, quantity in _quantities(check)]
    resolved: dict[str, Any] = {"kind": "results"}
    for side, quantity in zip(sides, quantities, strict=True):
        metric, evaluation = quantity.metric or check.metric, quantity.evaluation or check.evaluation
        classifier = quantity.classifier or check.classifier
        if classifier is None and evaluation is not None and evaluation in evaluations:
            classifier = evaluations[evaluation].classifier
        resolved[side] = {
            **quantity.model_dump(include={"run", "minus", "factor", "offset"}),
            "metric": metric,
            "evaluation": evaluation,
            "classifier": classifier if attributes_of(metric or "") else None,
        }
    return resolved


def _named(resolved: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(run, evaluation) of every quantity, each once, in order."""
    quantities = [resolved[side] for side in SIDES if side in resolved]
    pairs = [(it[key], it["evaluation"]) for it in quantities for key in ("run", "minus") if it[key] is not None]
    return list(dict.fromkeys(pairs))


def _absent(
    pairs: list[tuple[str, str]], runs: Collection[str], evaluations: Collection[str], measured: Measured
) -> list[str]:
    missing = [f"run {run} is not in config.yaml" for run, _ in pairs if run not in runs]
    missing += [f"evaluation {name} is not in config.yaml" for _, name in pairs if name not in evaluations]
    missing += [
        f"no table of the paper shows run {run} on {evaluation}"
        for run, evaluation in pairs
        if run in runs and evaluation in evaluations and (run, evaluation) not in measured
    ]
    return list(dict.fromkeys(missing))


def _untrained(run: str, runs: Collection[str], measured: Measured) -> list[str]:
    if run not in runs:
        return [f"run {run} is not in config.yaml"]
    return [] if run in {name for name, _ in measured} else [f"no table of the paper shows run {run}"]


def _study(check: StudyCheck) -> dict[str, Any]:
    """Selections in full."""
    other = {side: {**check.where, **given} for side in ("minus", "over") if (given := getattr(check, side))}
    return {"study": check.study, "value": check.where, **other}
