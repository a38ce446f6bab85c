"""Summaries of gradient studies on made-up numbers whose answer is known."""

import numpy as np
import pytest

from distalign.errors import UserError
from distalign.measure.gradient_study import by_cell, summarise
from distalign.store.parquet import GRADIENT_STUDY
from unit.present.gradient_examples import curves, sizes


def value(name, study, quantity, estimator, **place):
    rows = [
        row
        for row in summarise(name, study).to_pylist()
        if (row["quantity"], row["estimator"]) == (quantity, estimator)
        and all(row[key] == wanted for key, wanted in place.items())
    ]
    (row,) = rows
    return row


def test_fall_of_the_loss_and_against_the_adjusted_one():
    study = curves({"exact": [0.0, 0.1, 0.2], "adjusted": [0.5, 0.6, 0.4]})
    half = 4.302653 * 0.1 / np.sqrt(3)  # Student's t with 2 degrees of freedom, of a standard deviation of .1
    fall = value("curves", study, "loss_fall", "exact")
    assert (fall["value"], fall["low"], fall["high"]) == pytest.approx((0.1, 0.1 - half, 0.1 + half))
    assert (fall["name"], fall["backbone"], fall["guidance"], fall["steps"], fall["n"]) == (
        "curves", "shipped", 3.5, 7, 3,
    )  # fmt: skip
    assert value("curves", study, "loss_first", "adjusted")["value"] == pytest.approx(1)
    assert value("curves", study, "loss_last", "adjusted")["value"] == pytest.approx(0.5)
    against = value("curves", study, "loss_fall_against_adjusted", "exact")
    assert against["value"] == pytest.approx(-0.4)
    half = 4.302653 * np.std([-0.5, -0.5, -0.2], ddof=1) / np.sqrt(3)
    assert (against["low"], against["high"]) == pytest.approx((-0.4 - half, -0.4 + half))


def test_a_single_run_or_a_loss_that_is_no_number_has_no_interval():
    alone = value("x", curves({"exact": [0.3]}), "loss_fall", "exact")
    assert (alone["value"], alone["low"], alone["high"], alone["n"]) == (pytest.approx(0.3), None, None, 1)
    lost = value("x", curves({"exact": [0.3, float("nan")]}), "loss_last", "exact")
    assert (lost["low"], lost["high"]) == (None, None)


def test_orders_of_magnitude_per_cell():
    study = sizes({"exact": 1000.0, "unstandardised": 1.0, "adjusted": 0.1})
    for guidance in (1.0, 7.5):
        place = {"guidance": guidance, "steps": 4, "backbone": "early"}
        assert value("sizes", study, "coupling_orders", "exact", **place)["value"] == pytest.approx(3)
        assert value("sizes", study, "coupling_peak_orders", "exact", **place)["value"] == pytest.approx(3)
        assert value("sizes", study, "growth_orders", "exact", **place)["value"] == pytest.approx(3)
        assert value("sizes", study, "growth_orders", "adjusted", **place)["value"] == pytest.approx(-1)
        variation = value("sizes", study, "first_step_variation", "adjusted", **place)
        assert variation["value"] == pytest.approx(np.std([1, 2, 3]) / 2)
        assert variation["low"] is None


def test_without_an_adjusted_or_unstandardised_gradient_nothing_is_compared():
    names = set(summarise("x", curves({"exact": [0.1]}))["quantity"].to_pylist())
    names |= set(summarise("x", sizes({"exact": 2.0}))["quantity"].to_pylist())
    assert not names & {"loss_fall_against_adjusted", "coupling_orders", "coupling_peak_orders"}


def test_missing_values_stay_missing_and_empty_studies_are_refused():
    study = curves({"exact": [0.1, float("nan")]})
    assert np.isnan(next(iter(by_cell(study, "loss").values()))["exact"][-1]).tolist() == [False, True]
    with pytest.raises(UserError, match="'x' is empty"):
        summarise("x", GRADIENT_STUDY.empty_table())
