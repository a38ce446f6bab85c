"""Figure 1: drawn in every format, and its numbers beside it."""

import numpy as np
import pytest

from distalign.errors import UserError
from distalign.present.gradient_study import MAGNITUDES, gradient_figure
from distalign.present.style import write_figure_files
from distalign.store.parquet import GRADIENT_STUDY, read_table
from unit.present.gradient_examples import curves, sizes
from unit.present.test_figures import render_text

LOSSES = {"exact": [0.0, 0.1, 0.2], "unstandardised": [0.3, 0.3, 0.2], "adjusted": [0.5, 0.6, 0.4]}
SIZES = {"exact": 1000.0, "unstandardised": 1.0, "adjusted": 0.1}


@pytest.mark.parametrize(
    ("study", "schema"), [(curves(LOSSES), GRADIENT_STUDY), (sizes(SIZES), MAGNITUDES)], ids=["loss", "magnitude"]
)
def test_files_are_whole_and_repeatable(study, schema, tmp_path):
    paths = {folder: [tmp_path / folder / f"x.{end}" for end in ("png", "svg", "pdf", "parquet")] for folder in "ab"}
    for folder in "ab":
        figure, data = gradient_figure(study, "A study")
        write_figure_files(figure, paths[folder], data, {"stage": "figures"})
    for one, two in zip(paths["a"], paths["b"], strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert read_table(paths["a"][-1], schema).num_rows > 0


def test_every_run_of_the_losses_is_drawn():
    figure, _ = gradient_figure(curves(LOSSES), "A study")
    (axes,) = figure.axes
    ends = [line.get_ydata()[-1] for line in axes.lines]  # by estimator three runs, then their mean
    assert ends == pytest.approx([1, 0.9, 0.8, 0.9, 0.7, 0.7, 0.8, 2.2 / 3, 0.5, 0.4, 0.6, 0.5])
    words = render_text(figure)
    assert "exact (naive DFT)" in words
    assert "guidance 3.5, 7 steps" in words


def test_magnitudes_say_where_the_exact_gradient_is_largest():
    figure, data = gradient_figure(sizes(SIZES), "A study")
    assert len(figure.axes) == 2
    words = render_text(figure)
    assert "B: 1e+03 [1e+03, 1e+03]" in words
    assert "largest upper end is 1e+03: early model, guidance 1, 4 steps" in words
    rows = [row for row in data.to_pylist() if row["estimator"] == "exact" and row["guidance"] == 7.5]
    assert [row["mean"] for row in rows] == pytest.approx(2 * np.geomspace(1000, 1, 4))
    assert rows[0]["high"] == pytest.approx(2900)


def test_without_the_exact_gradient_nothing_is_said_of_it():
    figure, _ = gradient_figure(sizes({"adjusted": 1.0}), "A study")
    assert "B: " not in render_text(figure)


def test_an_empty_study_is_refused():
    with pytest.raises(UserError, match="its study is empty"):
        gradient_figure(GRADIENT_STUDY.empty_table(), "A study")
