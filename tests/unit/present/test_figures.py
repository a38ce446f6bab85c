import io
import os
import subprocess
import sys

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from distalign.config.attributes import ATTRIBUTES as EVERY
from distalign.config.attributes import PAPER_ATTRIBUTES as CLASSES
from distalign.config.attributes import RACE7
from distalign.errors import UserError
from distalign.present.contact_sheet import SHEET, contact_sheet
from distalign.present.frequencies import FREQUENCIES, frequency_bars, frequency_data
from distalign.present.style import CLASS_COLOURS, render, write_figure_files
from distalign.present.training_curves import CURVES, running_mean, training_curves
from distalign.store.parquet import TRAIN_LOG, read_table
from unit.present.examples import ATTRIBUTES, PROMPTS, log, study

RUNS = {"original": [0], "ours": [0]}
LABELS = {"original": "Original", "ours": "Ours"}


def sheet(**options):
    original, ours = study("original", 4), study("ours", 2)
    runs = {"original": original[:2], "ours": ours[:2]}
    return contact_sheet(runs, ATTRIBUTES, "evaluation", "Sheet", labels=LABELS, **options)


def bars(attributes=ATTRIBUTES, align=None, prompts=None):
    results = pa.concat_tables([study("original", 4)[2], study("ours", 2)[2]])
    about = ("occupations", "evaluation", {"ours": align or {}}, "Bars")
    return frequency_bars(results, RUNS, attributes, *about, prompts, LABELS)


def curves():
    logs = {("ours_gender", 0): log(), ("ours_gender", 1): log(), ("ours_race", 0): log()}
    return training_curves(logs, "Curves", {"ours_gender": "Ours (Gender)"})


FIGURES = {
    "sheet": lambda: sheet(prompts=1, images=2),
    "bars": lambda: bars(["gender"]),
    "curves": curves,
}
DATA = {"sheet": SHEET, "bars": FREQUENCIES, "curves": CURVES}


def render_text(figure):
    """All words of a figure."""
    found = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    return " | ".join(text for text in found if text)


@pytest.mark.parametrize("name", FIGURES)
def test_files_are_whole_and_repeatable(name, tmp_path):
    paths = {
        folder: [tmp_path / folder / f"{name}.{suffix}" for suffix in ("png", "svg", "pdf", "parquet")]
        for folder in "ab"
    }
    for folder in "ab":
        figure, data = FIGURES[name]()
        write_figure_files(figure, paths[folder], data, {"stage": "figures"})
    for one, two in zip(paths["a"], paths["b"], strict=True):
        assert one.read_bytes() == two.read_bytes()
    png, svg, pdf, parquet = paths["a"]
    picture = np.asarray(Image.open(png).convert("RGB"))
    assert picture.std() > 10
    assert b"<dc:date>" not in svg.read_bytes()
    assert b"CreationDate" not in pdf.read_bytes()
    assert read_table(parquet, DATA[name]).num_rows > 0
    assert duckdb.sql(f"select count(*) from '{parquet}'").fetchall()[0][0] > 0


def test_same_bytes_in_another_process_and_under_other_settings(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import matplotlib; matplotlib.rcParams['font.size'] = 20\n"
        "from unit.present.test_figures import bars; from distalign.present.style import render\n"
        "sys.stdout.buffer.write(render(bars(['gender'])[0], '.svg'))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "MPLCONFIGDIR": str(tmp_path)}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
    assert printed == render(bars(["gender"])[0], ".svg")


def test_every_class_has_its_own_colour():
    """Also among the paper's attributes together; eight colours are not enough for seven groups more."""
    together = [CLASS_COLOURS[name] for name in CLASSES]
    for classes in ([colour for own in together for colour in own.values()], list(CLASS_COLOURS[RACE7].values())):
        assert len(set(classes)) == len(classes)
    assert {name: tuple(classes) for name, classes in CLASS_COLOURS.items()} == EVERY


def test_sheet_shows_prompts_runs_classes_and_missing_faces():
    figure, data = sheet()
    words = render_text(figure)
    for word in (
        "a photo of the face of a farm worker, a person",
        "Original",
        "Ours",
        "female",
        "asian",
        "no face found",
    ):
        assert word in words
    rows = data.to_pylist()
    assert len(rows) == 2 * len(PROMPTS) * 4
    lost = [row for row in rows if not row["found"]]
    assert [(row["prompt_id"], row["index"], row["classes"]) for row in lost] == [("judge", 3, [])] * 2
    ours = [row for row in rows if row["run"] == "ours" and row["prompt_id"] == "chef"]
    assert [dict(row["classes"])["gender"] for row in ours] == ["female", "female", "male", "male"]
    assert dict(ours[0]["confidences"])["gender"] == pytest.approx(0.9)


def test_sheet_takes_the_first_prompts_and_images():
    _, data = sheet(prompts=2, images=3)
    assert {(row["prompt_id"], row["index"]) for row in data.to_pylist()} == {
        (prompt, index) for prompt in PROMPTS[:2] for index in range(3)
    }


def test_sheet_of_large_images_stays_small():
    big = study("big", 2, size=600)
    figure, _ = contact_sheet({"Big": big[:2]}, ["gender"], "evaluation", "Sheet", prompts=1)
    assert max(image.get_array().shape[0] for image in figure.axes[0].images) == 256


def test_sheet_refuses_other_noise_and_missing_predictions():
    original, other = study("original", 4), study("ours", 2, first_seed=7)
    runs = {"Original": original[:2], "Ours": other[:2]}
    with pytest.raises(UserError, match="'Ours' and 'Original' were not made from the same noise"):
        contact_sheet(runs, ATTRIBUTES, "evaluation", "Sheet")
    with pytest.raises(UserError, match="'reader' has no predictions"):
        contact_sheet({"Original": original[:2]}, ATTRIBUTES, "reader", "Sheet")


def test_bars_show_shares_and_targets():
    figure, data = bars(align={"gender": {"female": 0.75, "male": 0.25}})
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["Gender: female", *(f"Race: {name}" for name in CLASSES["race"])]
    rows = {(row["run"], row["prompt_id"], row["class"]): row for row in data.to_pylist()}
    chef = rows["ours", "chef", "female"]
    assert (chef["frequency"], chef["target"], chef["n_faces"]) == (0.5, 0.75, 4)
    assert rows["ours", "judge", "female"]["n_faces"] == 3
    assert rows["original", "chef", "female"]["low"] == pytest.approx(0.51, abs=0.01)  # Wilson: 4 of 4 is not certainty
    assert rows["ours", "chef", "asian"]["target"] == 0.25
    assert "farm worker" in render_text(figure)


def test_bars_of_few_prompts_and_of_a_run_without_results():
    _, data = bars(["gender"], prompts=1)
    assert {row["prompt_id"] for row in data.to_pylist()} == {"chef"}
    with pytest.raises(UserError, match="no frequencies of gender for run 'uce', seed 0"):
        frequency_bars(study("ours", 2)[2], {"uce": [0]}, ["gender"], "occupations", "evaluation", {}, "Bars")


def test_bars_of_several_seeds_are_means():
    tables = [study("ours", women, seed=seed)[2] for seed, women in ((0, 2), (1, 4))]
    about = ("occupations", "evaluation", {})
    data = frequency_data(pa.concat_tables(tables), {"ours": [0, 1]}, ["gender"], *about)
    rows = {(row["prompt_id"], row["class"]): row for row in data.to_pylist()}
    assert (rows["chef", "female"]["frequency"], rows["chef", "female"]["seeds"]) == (0.75, 2)
    assert rows["judge", "female"]["n_faces"] == 6


def test_bars_of_runs_with_different_targets():
    results = pa.concat_tables([study("original", 4)[2], study("ours", 2)[2], study("other", 3)[2]])
    align = {"ours": {"gender": {"female": 0.5, "male": 0.5}}, "other": {"gender": {"female": 0.9, "male": 0.1}}}
    runs = {"original": [0], "ours": [0], "other": [0]}
    figure, data = frequency_bars(results, runs, ["gender"], "occupations", "evaluation", align, "Bars")
    targets = {(row["run"], row["class"]): row["target"] for row in data.to_pylist()}
    assert targets["other", "male"] == 0.1
    assert (targets["ours", "female"], targets["original", "female"]) == (0.5, 0.5)
    lines = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert len({line.get_color() for line in lines}) == 3


def test_bars_of_age_show_the_class_the_paper_prints():
    assert [axes.get_title(loc="left") for axes in bars(["age"])[0].axes] == ["Age: old"]


def test_long_names_of_prompts_are_cut():
    results = study("ours", 2)[2]
    name = "bartender-at-willard-intercontinental-makes-a-mint-julep-with-fresh-mint-leaves"
    column = results.schema.get_field_index("prompt_id")
    renamed = pa.array([name if prompt == "chef" else prompt for prompt in results["prompt_id"].to_pylist()])
    results = results.set_column(column, "prompt_id", renamed)
    figure, data = frequency_bars(results, {"ours": [0]}, ["gender"], "occupations", "evaluation", {}, "Bars")
    assert name in data["prompt_id"].to_pylist()
    assert "bartender at willard intercontinental makes a mint julep wi…" in render_text(figure)


def test_curves_show_losses_bias_and_validation():
    figure, data = curves()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["Alignment loss", "Gender bias", "Faces found"]
    assert data.num_rows == 3 * log().num_rows
    assert {(row["run"], row["seed"]) for row in data.to_pylist()} == {
        ("ours_gender", 0),
        ("ours_gender", 1),
        ("ours_race", 0),
    }
    words = render_text(figure)
    assert "validation, evaluation classifier" in words
    assert "ours_race" in words
    assert [text.get_text() for text in figure.legends[0].texts].count("Ours (Gender)") == 1  # all its seeds together


def test_curves_of_nothing():
    with pytest.raises(UserError, match="training logs of ours are empty"):
        training_curves({("ours", 0): TRAIN_LOG.empty_table()}, "Curves")


def test_running_mean():
    values = np.array([0.0, 3.0, 6.0, 9.0])
    assert running_mean(values, 1) == pytest.approx(values)
    assert running_mean(values, 3) == pytest.approx([1.5, 3, 6, 7.5])


def test_png_has_no_software_note():
    figure, _ = bars(["gender"])
    assert Image.open(io.BytesIO(render(figure, ".png"))).info.keys() == {"dpi"}
