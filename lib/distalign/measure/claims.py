"""Decide claims: from results, training logs and gradient studies to effects, intervals and verdicts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from distalign.measure.paired import (
    UNDECIDED,
    Estimate,
    combine,
    estimate_known,
    estimate_means,
    interval,
    overall,
    ratio,
    scale,
    verdict,
)

SIDES = ("value", "minus", "over")
Term = tuple[str, str, str | None, str]  # run, evaluation, classifier, metric


class NothingKnown(Exception):
    """Something a check needs was not measured; the message says what."""


@dataclass
class Measured:
    """One metric of one run: per prompt the values of its seeds, and the rows about the run as a whole."""

    prompts: dict[str, list[float]] = field(default_factory=dict)
    whole: list[Mapping[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Evidence:
    """What claims are decided by.

    Attributes:
        results: schema RESULTS.
        logs: schema TRAIN_LOG, one for each seed of a run, by run.
        studies: rows of gradient studies by name. A row says in some columns what it is about (estimator, quantity,
            ...), and has `value`, its 95% interval `low` and `high`, and `n`, the number of runs behind it.
    """

    results: pa.Table
    logs: Mapping[str, Sequence[pa.Table]] = field(default_factory=dict)
    studies: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of a check. Without a measurement only the verdict (undecided) and the reason are there."""

    check: Mapping[str, Any]
    verdict: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    unit: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Decision:
    """What became of a claim."""

    name: str
    claim: str
    place: str
    note: str | None
    verdict: str
    outcomes: tuple[Outcome, ...]


def decide(spec: Mapping[str, Any], evidence: Evidence) -> list[Decision]:
    """Make every check of every claim.

    Args:
        spec: `Study.claims_spec`.
        evidence: what was measured.
    """
    measured = _index(evidence.results, set(_terms(spec)))
    decisions = []
    for name, claim in spec.items():
        outcomes = tuple(_outcome(check, measured, evidence) for check in claim["checks"])
        verdicts = overall([outcome.verdict for outcome in outcomes])
        decisions.append(Decision(name, claim["claim"], claim["place"], claim.get("note"), verdicts, outcomes))
    return decisions


def _outcome(check: Mapping[str, Any], measured: Mapping[Term, Measured], evidence: Evidence) -> Outcome:
    if check.get("missing"):
        return Outcome(check, UNDECIDED, reason=check["missing"])
    try:
        if check["kind"] == "training":
            effect = _training_effect(check, evidence.logs)
        elif check["kind"] == "study":
            effect = _study_effect(check, evidence.studies)
        else:
            effect = _results_effect(check, measured)
    except NothingKnown as unknown:
        return Outcome(check, UNDECIDED, reason=str(unknown))
    limits = interval(effect)
    if limits is None:
        reason = f"an interval needs two {effect.unit} or more"
        return Outcome(check, UNDECIDED, effect.value, n=effect.n, unit=effect.unit, reason=reason)
    said = verdict(limits, check.get("below"), check.get("above"), check.get("between"))
    return Outcome(check, said, effect.value, *limits, effect.n, effect.unit)


def _terms(spec: Mapping[str, Any]) -> Iterator[Term]:
    for claim in spec.values():
        for check in claim["checks"]:
            for side in SIDES if check["kind"] == "results" else ():
                if side in check:
                    yield from _terms_of(check[side])


def _terms_of(quantity: Mapping[str, Any]) -> list[Term]:
    about = (quantity["evaluation"], quantity.get("classifier"), quantity["metric"])
    return [(quantity[key], *about) for key in ("run", "minus") if quantity.get(key)]


def _index(results: pa.Table, wanted: set[Term]) -> dict[Term, Measured]:
    """The rows of the results that claims are about, by what they are about."""
    names = ("run", "evaluation", "classifier", "metric", "prompt_id", "value", "low", "high", "n")
    columns = [results[name].to_pylist() for name in names]
    found: dict[Term, Measured] = {}
    for run, evaluation, classifier, metric, prompt, value, low, high, n in zip(*columns, strict=True):
        term = (run, evaluation, classifier, metric)
        if term in wanted and value is not None:
            entry = found.setdefault(term, Measured())
            if prompt is not None:
                entry.prompts.setdefault(prompt, []).append(value)
            elif low is not None:
                entry.whole.append({"value": value, "low": low, "high": high, "n": n})
    return found


def _results_effect(check: Mapping[str, Any], measured: Mapping[Term, Measured]) -> Estimate:
    quantities = {side: check[side] for side in SIDES if side in check}
    terms = list(dict.fromkeys(term for quantity in quantities.values() for term in _terms_of(quantity)))
    estimates = _estimates(terms, measured)
    sides = {}
    for side, quantity in quantities.items():
        first, *subtracted = [estimates[term] for term in _terms_of(quantity)]
        difference = combine(first, subtracted[0]) if subtracted else first
        sides[side] = scale(difference, quantity["factor"], quantity["offset"])
    return _compared(sides)


def _estimates(terms: Sequence[Term], measured: Mapping[Term, Measured]) -> dict[Term, Estimate]:
    """Each term's mean over prompts; of a metric that no single prompt has, the run's value with its interval."""
    for run, evaluation, classifier, metric in terms:
        if (run, evaluation, classifier, metric) not in measured:
            reader = f" read by {classifier}" if classifier else ""
            raise NothingKnown(f"the results hold no {metric} of run {run} on {evaluation}{reader}")
    by_prompt = [term for term in terms if measured[term].prompts]
    samples = [{prompt: float(np.mean(v)) for prompt, v in measured[term].prompts.items()} for term in by_prompt]
    estimates = dict(zip(by_prompt, estimate_means(samples), strict=True))
    for term in terms:
        if term not in estimates:
            rows = measured[term].whole
            if not rows:
                raise NothingKnown(f"the results have no interval for {term[3]} of run {term[0]} on {term[1]}")
            value, low, high = (float(np.mean([row[key] for row in rows])) for key in ("value", "low", "high"))
            estimates[term] = estimate_known(value, low, high, rows[0]["n"], "observations", *map(str, term))
    return estimates


def _training_effect(check: Mapping[str, Any], logs: Mapping[str, Sequence[pa.Table]]) -> Estimate:
    """A loss at the end of training against the start. Iterations of a window count as independent draws."""
    run, metric = check["training"], check["metric"]
    start: dict[str, float] = {}
    end: dict[str, float] = {}
    for number, log in enumerate(logs.get(run, ())):
        rows = [
            row
            for row in log.to_pylist()
            if (row["phase"], row["metric"]) == ("train", metric) and row["value"] is not None
        ]
        rows = [row for row in rows if np.isfinite(row["value"])]
        width = int(len(rows) * check["window"])
        for window, chosen in ((start, rows[:width]), (end, rows[len(rows) - width :])):
            window.update({f"{number}/{row['iteration']}": row["value"] for row in chosen})
    if not start:
        raise NothingKnown(f"the training log of run {run} has too few iterations with {metric}")
    before, after = estimate_means([start, end], "iterations")
    return _compared({"value": after, "minus" if check["by"] == "difference" else "over": before})


def _study_effect(check: Mapping[str, Any], studies: Mapping[str, Sequence[Mapping[str, Any]]]) -> Estimate:
    sides = {side: _row(check["study"], check[side], studies) for side in SIDES if side in check}
    return _compared(sides)


def _row(name: str, where: Mapping[str, Any], studies: Mapping[str, Sequence[Mapping[str, Any]]]) -> Estimate:
    """The one row of a study that is meant."""
    texts = {column: value if isinstance(value, str) else f"{value:g}" for column, value in where.items()}
    about = ", ".join(f"{column} {text}" for column, text in texts.items())
    if name not in studies:
        raise NothingKnown(f"there are no results of gradient study {name}")
    rows = [row for row in studies[name] if all(row.get(column) == value for column, value in where.items())]
    if not rows:
        raise NothingKnown(f"gradient study {name} has nothing of {about}")
    if len(rows) > 1:
        raise NothingKnown(f"gradient study {name} has {len(rows)} rows of {about}, not one")
    value, low, high = (rows[0][key] for key in ("value", "low", "high"))
    if not all(number is not None and np.isfinite(number) for number in (value, low, high)):
        raise NothingKnown(f"gradient study {name} has no finite interval for {about}")
    return estimate_known(value, low, high, rows[0]["n"], "runs", name, about)


def _compared(sides: Mapping[str, Estimate]) -> Estimate:
    if "minus" in sides:
        return combine(sides["value"], sides["minus"])
    if "over" not in sides:
        return sides["value"]
    quotient = ratio(sides["value"], sides["over"])
    if quotient is None:
        raise NothingKnown("what is divided by cannot be told from zero")
    return quotient
