"""From a figure's specification and its files to the drawing, as the workflow does it."""

from dataclasses import replace
from typing import get_args

import pytest

from distalign.config.models import Figure
from distalign.measure.bias import RunKey, bias_table
from distalign.present.figures import KINDS, FigureFiles, draw_figure
from distalign.store.parquet import BIAS, CLASSIFIED, IMAGES, RESULTS, TRAIN_LOG, write_table
from unit.present.examples import READ, log, study

COMMON = {"title": "Title", "read": {"evaluation": list(READ)}, "classifier": "evaluation", "evaluation": "occupations"}
RUNS = [{"run": run, "seeds": [0], "label": run.capitalize()} for run in ("original", "ours")]
ROWS = [{**entry, "evaluation": "occupations", "classifier": "evaluation", "group": "All"} for entry in RUNS]
SWEEP = [{"evaluation": name, "guidance": scale, "classifier": "evaluation"} for name, scale in (("occupations", 4),)]
SPECS = {
    "training_curves": {"runs": RUNS[1:]},
    "frequencies": {"runs": RUNS, "attributes": ["gender"], "align": {}},
    "contact_sheet": {"runs": RUNS, "attributes": ["gender", "age"], "prompts": 1, "images": 2},
    "tradeoff": {"rows": ROWS, "bias": ["bias/gender"], "preservation": "clip_i"},
    "guidance_sweep": {"runs": RUNS, "evaluations": SWEEP, "metrics": ["bias/gender"]},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files where the workflow has them."""
    place, found = tmp_path_factory.mktemp("results"), {"images": [], "classified": [], "bias": []}
    for run, women in (("original", 4), ("ours", 2)):
        images, classified, _ = study(run, women)
        bias = bias_table(classified, RunKey("mini", run, 0, "occupations"), {})
        schema = CLASSIFIED({"evaluation": READ})
        for kind, table, columns in (
            ("images", images, IMAGES),
            ("classified", classified, schema),
            ("bias", bias, BIAS),
        ):
            found[kind].append(place / kind / run / "0" / "occupations.parquet")
            write_table(found[kind][-1], table, columns, {})
    logs = [place / "runs" / "ours" / "0" / "train_log.parquet"]
    write_table(logs[0], log(), TRAIN_LOG, {})
    return FigureFiles(train_logs=logs, **found)


def test_every_kind_of_the_configuration_is_drawn():
    union = get_args(Figure)[0]
    kinds = {get_args(model.model_fields["kind"].annotation)[0] for model in get_args(union)}
    assert kinds == KINDS.keys() == SPECS.keys()


@pytest.mark.parametrize("kind", SPECS)
def test_from_files_to_drawing(kind, files):
    figure, data = draw_figure({**COMMON, "kind": kind, **SPECS[kind]}, files)
    assert data.num_rows > 0
    texts = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    words = {text.get_text() for text in texts}
    assert "Title" in words
    assert words & {"Ours", "2  Ours"}  # with its number in the key of a trade-off
    assert set(data["run"].to_pylist()) == ({"ours"} if kind == "training_curves" else {"original", "ours"})


def test_image_quality_is_among_what_figures_compare(files, tmp_path):
    rows = [
        {**vars(RunKey("mini", run, 0, "occupations")), "prompt_id": None, "classifier": None, "std": None, "n": 12}
        | {"metric": metric, "value": value, "low": value - 1, "high": value + 1}
        for run, value in (("original", 9.0), ("ours", 12.0))
        for metric in ("kid", "floor/kid")
    ]
    write_table(tmp_path / "quality", {name: [row[name] for row in rows] for name in RESULTS.names}, RESULTS, {})
    files = replace(files, quality=[tmp_path / "quality"])
    _, points = draw_figure({**COMMON, "kind": "tradeoff", **SPECS["tradeoff"], "preservation": "kid"}, files)
    assert points["preservation"].to_pylist() == [9.0, 12.0]
    _, line = draw_figure({**COMMON, "kind": "guidance_sweep", **SPECS["guidance_sweep"], "metrics": ["kid"]}, files)
    assert line["value"].to_pylist() == [9.0, 12.0]
