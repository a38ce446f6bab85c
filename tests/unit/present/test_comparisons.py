"""Figures that compare many runs: bias against preservation, and over guidance scales."""

import duckdb
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from distalign.errors import UserError
from distalign.present.guidance import SWEEP, guidance_sweep
from distalign.present.placement import place_labels
from distalign.present.style import styled, write_figure_files
from distalign.present.tradeoff import POINTS, tradeoff
from distalign.store.parquet import RESULTS, read_table, to_table

# run -> evaluation -> metric -> value
MEASURED = {
    "original": {"occupations": {"bias/gender": 0.6, "floor/gender": 0.1, "clip_t": 0.4}},
    "ours": {
        "occupations": {"bias/gender": 0.2, "floor/gender": 0.1, "clip_t": 0.4, "clip_i": 0.8},
        "guidance_8": {"bias/gender": 0.3, "floor/gender": 0.1, "clip_t": 0.5, "clip_i": 0.7},
    },
    "uce": {"occupations": {"bias/gender": 0.5, "floor/gender": 0.2, "clip_t": 0.3, "clip_i": 0.9}},
}
EVALUATIONS = [
    {"evaluation": "occupations", "guidance": 4.5, "classifier": "evaluation"},
    {"evaluation": "guidance_8", "guidance": 8.0, "classifier": "evaluation"},
]


def results():
    rows = [
        {
            "preset": "mini",
            "run": run,
            "seed": seed,
            "evaluation": evaluation,
            "prompt_id": None,
            "classifier": "evaluation" if "/" in metric else None,
            "metric": metric,
            "value": value + 0.1 * seed,
            "std": 0.1,
            "low": value - 0.05,
            "high": value + 0.05,
            "n": 24,
        }
        for run, by_evaluation in MEASURED.items()
        for evaluation, values in by_evaluation.items()
        for metric, value in values.items()
        for seed in (0, 1)
    ]
    return to_table({name: [row[name] for row in rows] for name in RESULTS.names}, RESULTS)


def entry(run, label, seeds=(0,), **more):
    return {"run": run, "label": label, "seeds": seeds, "evaluation": "occupations", "classifier": "evaluation", **more}


ROWS = [
    entry("original", "Original"),
    entry("ours", "Ours", (0, 1), group="Gender"),
    entry("uce", "UCE", group="Others"),
]


def scatter(rows=ROWS, preservation="clip_i"):
    return tradeoff(rows, ["bias/gender"], preservation, results(), "Trade-off")


def sweep(metrics=("bias/gender", "clip_t")):
    return guidance_sweep({"ours": [0, 1]}, EVALUATIONS, metrics, results(), "Sweep", {"ours": "Ours"})


def words(figure):
    found = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return [artist.get_text() for artist in found if artist.get_text()]


@pytest.mark.parametrize(("name", "draw", "schema"), [("scatter", scatter, POINTS), ("sweep", sweep, SWEEP)])
def test_files_are_whole_and_repeatable(name, draw, schema, tmp_path):
    for folder in "ab":
        figure, data = draw()
        paths = [tmp_path / folder / f"{name}.{suffix}" for suffix in ("png", "svg", "pdf", "parquet")]
        write_figure_files(figure, paths, data, {"stage": "figures"})
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name
    assert read_table(tmp_path / "a" / f"{name}.parquet", schema).num_rows > 0
    query = f"select count(*) from '{tmp_path}/a/{name}.parquet' where metric = 'bias/gender' and floor >= 0"
    assert duckdb.sql(query).fetchall()[0][0] > 0


def test_scatter_holds_every_row_with_its_interval():
    _, data = scatter()
    rows = {row["run"]: row for row in data.to_pylist()}
    assert rows.keys() == {"original", "ours", "uce"}
    ours = rows["ours"]
    assert (ours["group"], ours["label"], ours["seeds"], ours["preservation_metric"]) == ("Gender", "Ours", 2, "clip_i")
    assert ours["value"] == pytest.approx(0.25)  # mean over seeds
    assert (ours["low"], ours["high"]) == pytest.approx((0.15, 0.25))
    assert (ours["preservation"], ours["preservation_low"]) == pytest.approx((0.85, 0.75))
    assert rows["original"]["preservation"] is None


def test_scatter_shows_groups_by_colour_and_shape_and_the_original_as_a_line():
    figure, _ = scatter()
    (axes,) = figure.axes
    points = [line for line in axes.lines if line.get_marker() not in (None, "None", "")]
    assert len({line.get_color() for line in points}) == len({line.get_marker() for line in points}) == 2
    (original,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert list(original.get_xdata()) == [0.6, 0.6]
    assert {"Original", "Gender", "Others", "95% interval"} <= set(words(figure))
    assert axes.get_xlabel() == "Gender bias ↓"
    assert axes.get_ylabel() == "CLIP-I ↑"


def test_scatter_says_which_point_is_which_row_by_numbers_that_are_in_the_data_too():
    rows = [*ROWS, entry("uce", "UCE again", group="Others")]
    figure, data = scatter(rows)
    assert [row["number"] for row in data.to_pylist()] == [None, 1, 2, 3]
    assert {"1  Ours", "2  UCE", "3  UCE again"} <= set(words(figure))
    (axes,) = figure.axes
    beside = {note.get_text(): note.xy for note in axes.texts if note.get_text() != "Original"}
    values = {row["number"]: (row["value"], row["preservation"]) for row in data.to_pylist()}
    assert beside == {"1": pytest.approx(values[1]), "2, 3": pytest.approx(values[2])}  # one run, one place


def test_scatter_of_many_groups_tells_all_apart_and_names_bare_numbers_with_their_group():
    labels = ["2", ".8", "half", "1", "32", "no loss", "4"]
    rows = [entry("uce", label, group=f"Setting {number}") for number, label in enumerate(labels)]
    figure, _ = scatter([ROWS[0], *rows])
    (axes,) = figure.axes
    points = [line for line in axes.lines if line.get_marker() not in (None, "None", "")]
    assert len({(line.get_color(), line.get_marker()) for line in points}) == len(labels)
    assert {"1  Setting 0 2", "2  Setting 1 .8", "3  half", "6  no loss"} <= set(words(figure))


def test_scatter_shows_the_original_as_a_point_where_it_has_a_value():
    figure, data = scatter(preservation="clip_t")
    assert all(row["preservation"] is not None for row in data.to_pylist())
    assert not [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]


def test_scatter_of_nothing_and_of_a_run_without_results():
    with pytest.raises(UserError, match="no row has both bias/gender and clip_i"):
        scatter(ROWS[:1])
    with pytest.raises(UserError, match=r"no results for run 'sega', seed 0"):
        scatter([entry("sega", "SEGA")])


def test_sweep_takes_guidance_from_the_evaluations():
    figure, data = sweep()
    rows = {(row["guidance"], row["metric"]): row for row in data.to_pylist()}
    assert rows.keys() == {(guidance, metric) for guidance in (4.5, 8) for metric in ("bias/gender", "clip_t")}
    assert rows[8, "bias/gender"]["value"] == pytest.approx(0.35)
    assert (rows[8, "bias/gender"]["evaluation"], rows[8, "bias/gender"]["seeds"]) == ("guidance_8", 2)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Gender bias ↓", "CLIP-T ↑"]
    assert figure.axes[0].get_ylim()[0] == 0
    assert "Ours" in words(figure)
    assert {"4.5", "8"} <= set(words(figure))


def test_sweep_of_an_evaluation_without_results():
    with pytest.raises(UserError, match="no results for run 'original', seed 0, evaluation 'guidance_8'"):
        guidance_sweep({"original": [0]}, EVALUATIONS, ["bias/gender"], results(), "Sweep")


def test_labels_hide_neither_each_other_nor_points():
    generator = np.random.default_rng(0)
    spots = {tuple(generator.uniform(0.1, 0.9, 2).tolist()): f"run number {index}" for index in range(20)}
    with styled():
        figure = Figure(figsize=(4.5, 3.5), layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        place_labels(axes, spots)
        figure.canvas.draw()
        renderer = figure.canvas.get_renderer()
        notes = [text for text in axes.texts if isinstance(text, Annotation)]
        boxes = [super(Annotation, note).get_window_extent(renderer) for note in notes]
        page = axes.get_window_extent(renderer)
    assert sorted(note.get_text() for note in notes) == sorted(spots.values())
    overlaps = [(a, b) for a, one in enumerate(boxes) for b, two in enumerate(boxes[:a]) if one.overlaps(two)]
    assert not overlaps
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 for box in boxes)
    for at in axes.transData.transform(list(spots)):
        assert not [box for box in boxes if box.contains(*at)]
