import numpy as np
import pyarrow as pa
import pytest

from distalign.measure.bias import RunKey, bias_table
from distalign.measure.claims import Evidence, decide
from distalign.measure.gradient_study import summarise
from distalign.measure.results import run_results
from distalign.store.parquet import RESULTS, TRAIN_LOG, to_table
from unit.measure.predictions import predictions
from unit.present.gradient_examples import curves

PROMPTS = [f"job{index}" for index in range(6)]


def results(*runs):
    """RESULTS rows of (run, seed, evaluation, metric, classifier, value per prompt, run-level value, low, high)."""
    rows = []
    for run, seed, evaluation, metric, classifier, by_prompt, whole in runs:
        about = {"preset": "mini", "run": run, "seed": seed, "evaluation": evaluation, "std": None}
        about |= {"metric": metric, "classifier": classifier}
        value, low, high = whole
        rows.append({**about, "prompt_id": None, "value": value, "low": low, "high": high, "n": 50})
        for prompt, number in by_prompt.items():
            rows.append({**about, "prompt_id": prompt, "value": number, "low": None, "high": None, "n": 48})
    return to_table({name: [row[name] for row in rows] for name in RESULTS.names}, RESULTS)


def bias_of(run, values, seed=0, evaluation="occupations"):
    by_prompt = dict(zip(PROMPTS, values, strict=True))
    return run, seed, evaluation, "bias/gender", "evaluation", by_prompt, (0.0, None, None)


def quantity(run, **keys):
    about = {"evaluation": "occupations", "metric": "bias/gender", "classifier": "evaluation"}
    return {"run": run, "factor": 1.0, "offset": 0.0, **about, **keys}


def outcome_of(check, evidence):
    (decision,) = decide({"it": {"claim": "It.", "place": "here", "checks": [check]}}, evidence)
    assert decision.verdict == decision.outcomes[0].verdict
    return decision.outcomes[0]


ORIGINAL, OURS = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0.4, 0.35, 0.2, 0.1, 0.05, -0.1]
EVIDENCE = Evidence(
    results(
        bias_of("original", ORIGINAL),
        bias_of("ours", OURS),
        bias_of("prefix", [(a + b) / 2 for a, b in zip(ORIGINAL, OURS, strict=True)]),
    )
)


def test_a_difference_is_paired_by_prompt():
    check = {"kind": "results", "value": quantity("ours"), "minus": quantity("original"), "below": -0.4}
    outcome = outcome_of(check, EVIDENCE)
    assert outcome.effect == pytest.approx(np.mean(np.subtract(OURS, ORIGINAL)))  # -.4833; unpaired it spans 0
    assert -0.52 < outcome.low < outcome.effect < outcome.high < -0.44
    assert (outcome.verdict, outcome.n, outcome.unit) == ("holds", 6, "prompts")
    assert outcome_of({**check, "below": -0.6}, EVIDENCE).verdict == "does not hold"
    assert outcome_of({**check, "below": -0.48}, EVIDENCE).verdict == "undecided"


def test_share_of_an_effect_and_a_weighted_quantity():
    half = {
        "kind": "results",
        "value": quantity("original", minus="prefix"),
        "over": quantity("original", minus="ours"),
        "between": [0.49, 0.51],
    }
    outcome = outcome_of(half, EVIDENCE)
    assert (outcome.verdict, outcome.effect) == ("holds", pytest.approx(0.5))
    weighted = {"kind": "results", "value": quantity("original", minus="prefix", factor=2, offset=1), "above": 0}
    assert outcome_of(weighted, EVIDENCE).effect == pytest.approx(1 + 0.4833, abs=1e-3)


def test_seeds_are_averaged_and_prompts_without_a_face_left_out():
    values = [None, *OURS[1:]]
    evidence = Evidence(
        results(bias_of("original", ORIGINAL), bias_of("ours", OURS), bias_of("ours", [v + 1 for v in OURS], seed=1))
    )
    check = {"kind": "results", "value": quantity("ours"), "minus": quantity("original"), "below": 0.1}
    assert outcome_of(check, evidence).effect == pytest.approx(np.mean(np.subtract(OURS, ORIGINAL)) + 0.5)
    evidence = Evidence(results(bias_of("original", ORIGINAL), bias_of("ours", values)))
    outcome = outcome_of(check, evidence)
    assert (outcome.n, outcome.effect) == (5, pytest.approx(np.mean(np.subtract(OURS, ORIGINAL)[1:])))


def test_metric_of_whole_runs_has_its_own_interval():
    kid = [(run, 0, "occupations", "kid", None, {}, (v, v - 0.3, v + 0.3)) for run, v in (("a", 1.0), ("b", 2.0))]
    keys = {"metric": "kid", "classifier": None}
    check = {"kind": "results", "value": quantity("b", **keys), "minus": quantity("a", **keys), "above": 0.5}
    outcome = outcome_of(check, Evidence(results(*kid)))
    assert (outcome.effect, outcome.verdict, outcome.n) == (1, "holds", 50)
    assert (outcome.low, outcome.high) == pytest.approx((1 - 0.424, 1 + 0.424), abs=0.03)
    without = [(*kid[0][:-1], (1.0, None, None)), kid[1]]
    assert "no interval for kid of run a" in outcome_of(check, Evidence(results(*without))).reason


def test_what_was_not_measured_is_named():
    check = {"kind": "results", "value": quantity("uce"), "minus": quantity("original"), "below": 0}
    missing = outcome_of({**check, "missing": "run uce is not in config.yaml"}, EVIDENCE)
    assert (missing.verdict, missing.effect, missing.reason) == ("undecided", None, "run uce is not in config.yaml")
    assert outcome_of(check, EVIDENCE).reason == (
        "the results hold no bias/gender of run uce on occupations read by evaluation"
    )
    nothing = {"kind": "results", "value": quantity("ours"), "over": quantity("ours", minus="ours"), "below": 1}
    assert "cannot be told from zero" in outcome_of(nothing, EVIDENCE).reason
    one = Evidence(EVIDENCE.results.slice(7, 2))  # the run as a whole, and one prompt
    alone = outcome_of({"kind": "results", "value": quantity("ours"), "below": 1}, one)
    assert (alone.verdict, alone.effect, alone.reason) == ("undecided", 0.4, "an interval needs two prompts or more")


def log(values, metric="loss/align"):
    columns = {
        "iteration": range(len(values)),
        "phase": ["train"] * len(values),
        "classifier": [None] * len(values),
        "metric": [metric] * len(values),
        "value": values,
    }
    return to_table({name: list(column) for name, column in columns.items()}, TRAIN_LOG)


def test_a_loss_at_the_end_against_the_start():
    falling = log([2.0, 2.2, 1.8, 1.5, float("nan"), 1.2, 1.0, 0.5, 0.4, 0.6, 0.5])
    check = {"kind": "training", "training": "ours", "metric": "loss/align", "by": "ratio", "window": 0.3}
    outcome = outcome_of({**check, "below": 0.5}, Evidence(EVIDENCE.results, {"ours": [falling]}))
    assert outcome.effect == pytest.approx(0.25)  # .5 over 2
    assert (outcome.n, outcome.unit, outcome.verdict) == (3, "iterations", "holds")
    flat = {**check, "by": "difference", "above": -0.5}
    steady = [log([1.0, 1.1, 0.9, 1.0] * 5), log([1.1, 1.0, 1.0, 0.9] * 5)]
    outcome = outcome_of(flat, Evidence(EVIDENCE.results, {"ours": steady}))
    assert (outcome.verdict, outcome.n) == ("holds", 12)
    assert "too few iterations" in outcome_of({**check, "below": 1}, Evidence(EVIDENCE.results)).reason
    other = Evidence(EVIDENCE.results, {"ours": [log([1.0] * 9, "loss/face")]})
    assert "too few iterations with loss/align" in outcome_of({**check, "below": 1}, other).reason


def test_rows_of_a_gradient_study():
    rows = [
        {"estimator": name, "quantity": "loss", "value": value, "low": value - 0.1, "high": value + 0.1, "n": 3}
        for name, value in (("exact", 0.9), ("adjusted", 0.2))
    ]
    evidence = Evidence(EVIDENCE.results, studies={"one_image": rows})
    check = {"kind": "study", "study": "one_image", "value": {"estimator": "exact", "quantity": "loss"}, "above": 0.5}
    outcome = outcome_of(check, evidence)
    assert (outcome.verdict, outcome.n, outcome.unit) == ("holds", 3, "runs")
    against = {**check, "minus": {"estimator": "adjusted", "quantity": "loss"}}
    assert outcome_of(against, evidence).effect == pytest.approx(0.7)
    assert "2 rows of quantity loss, not one" in outcome_of({**check, "value": {"quantity": "loss"}}, evidence).reason
    assert (
        "has nothing of quantity x, steps 20"
        in outcome_of({**check, "value": {"quantity": "x", "steps": 20.0}}, evidence).reason
    )
    assert "no results of gradient study other" in outcome_of({**check, "study": "other"}, evidence).reason


def test_a_gradient_study_as_it_is_summarised():
    study = curves({"exact": [0.0, 0.02, 0.01], "adjusted": [0.8, 0.75, 0.7]})
    evidence = Evidence(EVIDENCE.results, studies={"one": summarise("one", study).to_pylist()})
    last, first = ({"estimator": "exact", "quantity": f"loss_{end}"} for end in ("last", "first"))
    check = {"kind": "study", "study": "one", "value": last, "over": first, "above": 0.9}
    outcome = outcome_of(check, evidence)
    assert (outcome.effect, outcome.verdict, outcome.n) == (pytest.approx(0.99), "holds", 3)
    adjusted = {**check, "value": {**last, "estimator": "adjusted"}, "over": {**first, "estimator": "adjusted"}}
    assert outcome_of(adjusted, evidence).verdict == "does not hold"


def test_a_claim_needs_all_of_its_checks():
    good = {"kind": "results", "value": quantity("ours"), "below": 1}
    checks = [good, {**good, "missing": "run x is not in config.yaml"}, {**good, "below": -1}]
    spec = {
        "all": {"claim": "All.", "place": "here", "checks": checks[:1] * 2},
        "open": {"claim": "Open.", "place": "here", "checks": checks[:2]},
        "not": {"claim": "Not.", "place": "here", "note": "A note.", "checks": checks},
    }
    decisions = decide(spec, EVIDENCE)
    assert [it.verdict for it in decisions] == ["holds", "undecided", "does not hold"]
    assert (decisions[2].note, decisions[2].place, len(decisions[2].outcomes)) == ("A note.", "here", 3)


def test_results_as_the_pipeline_makes_them():
    tables = []
    for run, women in (("original", 9), ("ours", 5)):
        images = [
            (prompt, {"gender": "female" if index < women - (place % 2) else "male"})
            for place, prompt in enumerate(PROMPTS)
            for index in range(10)
        ]
        classified = predictions(images, ("evaluation",), ("gender",))
        tables.append(run_results(bias_table(classified, RunKey("mini", run, 0, "occupations"), {}), classified))
    check = {"kind": "results", "value": quantity("ours"), "minus": quantity("original"), "below": -0.3}
    outcome = outcome_of(check, Evidence(pa.concat_tables(tables)))
    # original .8 and .6, ours 0 and .2: differences -.8 and -.4
    assert (outcome.effect, outcome.n, outcome.verdict) == (pytest.approx(-0.6), 6, "holds")
