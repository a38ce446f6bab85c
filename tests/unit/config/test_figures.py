"""Figures of config.yaml: keys by kind, what each is drawn from, and what is wrong with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distalign.config.figures import figure_images, figure_logs
from distalign.config.study import load_study

ProblemsOf = Callable[[Any], dict[str, str]]
TRADEOFF = {"kind": "tradeoff", "title": "Trade-off", "tables": ["headline", "comparison"], "bias": ["bias/gender"]}
SWEEP = {
    "kind": "guidance_sweep",
    "title": "Sweep",
    "runs": ["original", "ours_gender_race"],
    "evaluations": ["occupations", "guidance_2"],
}


@pytest.fixture
def config(raw: dict[str, Any]) -> dict[str, Any]:
    raw["evaluations"]["guidance_2"] = {"guidance": 2.0}
    raw["figures"] = {"tradeoff": dict(TRADEOFF), "sweep": dict(SWEEP)}
    return raw


@pytest.mark.parametrize(
    ("figure", "changes", "path", "message"),
    [
        ("tradeoff", {"runs": ["original"]}, "runs", "has no meaning for kind 'tradeoff'; valid: title, kind, tables"),
        ("tradeoff", {"tables": ["comparisn"]}, "tables[0]", "no table of this name; did you mean 'comparison'?"),
        ("tradeoff", {"tables": []}, "tables", "at least 1 item"),
        ("tradeoff", {"bias": ["clip_i"]}, "bias[0]", "no measure of bias"),
        ("tradeoff", {"bias": ["bias/gendr"]}, "bias[0]", "no measure of bias; did you mean 'bias/gender'?"),
        ("tradeoff", {"preservation": "clip"}, "preservation", "no metric of this name; did you mean 'clip_"),
        ("tradeoff", {"presrvation": "dino"}, "presrvation", "unknown key; did you mean 'preservation'?"),
        (
            "sweep",
            {"evaluation": "occupations"},
            "evaluation",
            "has no meaning for kind 'guidance_sweep'; did you mean",
        ),
        ("sweep", {"evaluations": ["occupations"]}, "evaluations", "at least 2 items"),
        ("sweep", {"evaluations": ["occupations", "guidance"]}, "evaluations[1]", "did you mean 'guidance_2'?"),
        (
            "sweep",
            {"evaluations": ["guidance_2", "guidance_2"]},
            "evaluations[1]",
            "has the guidance of 'guidance_2', 2",
        ),
        ("sweep", {"metrics": ["bias"]}, "metrics[0]", "no metric of this name"),
        ("sweep", {"runs": ["original"]}, "metrics", "needed where none of the figure's runs aligns an attribute"),
        ("sweep", {"runs": ["orignal"]}, "runs[0]", "did you mean 'original'?"),
        ("sweep", {"labels": {"orignal": "SD"}}, "labels.orignal", "does not show this run; did you mean 'original'?"),
        ("sweep", {"kind": "guidance_swep"}, "kind", "no kind of this name; did you mean 'guidance_sweep'?"),
        ("sweep", {"kind": None}, "kind", "no kind of this name; valid: training_curves, frequencies, contact_sheet"),
        ("sweep", {"kind": ["tradeoff"]}, "kind", "no kind of this name"),
    ],
)
def test_what_is_wrong_with_a_figure(
    config: dict[str, Any], problems_of: ProblemsOf, figure: str, changes: dict[str, Any], path: str, message: str
) -> None:
    config["figures"][figure] |= changes
    found = problems_of(config)
    assert list(found) == [f"figures.{figure}.{path}"]
    assert message in found[f"figures.{figure}.{path}"]


def test_a_figure_without_its_kind_or_that_is_none(config: dict[str, Any], problems_of: ProblemsOf) -> None:
    del config["figures"]["sweep"]["kind"]
    config["figures"]["tradeoff"] = 3
    found = problems_of(config)
    assert found["figures.sweep.kind"].startswith("this key is missing; valid: training_curves")
    assert found["figures.tradeoff"] == "should be a mapping (key: value)"


def test_a_sweep_is_over_guidance_alone(config: dict[str, Any], problems_of: ProblemsOf) -> None:
    config["evaluations"]["guidance_2"]["prompts"] = "validation"
    message = "has other prompts than 'occupations'"
    assert problems_of(config) == {"figures.sweep.evaluations[1]": message}


def test_pictures_of_the_original_alone_need_attributes(
    config: dict[str, Any], problems_of: ProblemsOf, root: Path
) -> None:
    sheet = {"kind": "contact_sheet", "title": "Sheet", "runs": ["original"], "evaluation": "occupations"}
    config["figures"] = {"sheet": sheet}
    assert list(problems_of(config)) == ["figures.sheet.attributes"]
    config["figures"] = {"sheet": {**sheet, "attributes": ["gender"]}}
    assert load_study(config, root).figure_spec("sheet")["attributes"] == ["gender"]


def test_tradeoff_takes_the_rows_of_its_tables_once(config: dict[str, Any], root: Path) -> None:
    study = load_study(config, root)
    spec = study.figure_spec("tradeoff")
    assert [(row["run"], row.get("group")) for row in spec["rows"]] == [
        ("original", None),
        ("ours_gender", "Gender"),
        ("ours_gender_race", "Gender and race"),
        ("ours_race", "Race"),
    ]
    assert spec["preservation"] == "clip_i"
    assert not any("paper" in row for row in spec["rows"])
    assert figure_images(study, "tradeoff") == [(row["run"], 0, "occupations") for row in spec["rows"]]
    assert figure_logs(study, "tradeoff") == []


def test_a_table_without_groups_is_one(config: dict[str, Any], root: Path) -> None:
    rows = [{"run": {"from": "ours_gender", "rank": rank}, "label": f"rank {rank}"} for rank in (2, 4)]
    table = {"title": "Rank", "evaluation": "occupations", "columns": ["bias/gender"], "rows": rows}
    config["tables"]["ablation_rank"] = table
    config["figures"]["tradeoff"]["tables"] = ["comparison", "ablation_rank"]
    rows = load_study(config, root).figure_spec("tradeoff")["rows"]
    assert [(row["label"], row.get("group")) for row in rows[-2:]] == [("rank 2", "Rank"), ("rank 4", "Rank")]


def test_sweep_is_by_rising_guidance_and_shows_what_is_aligned(config: dict[str, Any], root: Path) -> None:
    config["runs"]["ours_gender_race"]["seeds"] = [0, 1]
    study = load_study(config, root)
    spec = study.figure_spec("sweep")
    assert [it["evaluation"] for it in spec["evaluations"]] == ["guidance_2", "occupations"]
    assert spec["evaluations"][0] == {"evaluation": "guidance_2", "guidance": 2.0, "classifier": "evaluation"}
    assert spec["metrics"] == ["bias/gender", "bias/race"]
    assert [(entry["label"], entry["seeds"]) for entry in spec["runs"]] == [
        ("Original", [0]),
        ("Ours (Gender and race)", [0, 1]),
    ]
    assert len(figure_images(study, "sweep")) == 2 * 3


def test_a_label_two_runs_share_tells_nothing(config: dict[str, Any], root: Path) -> None:
    rows = [{"run": run, "label": "Ours", "group": "All"} for run in ("ours_gender", "ours_race")]
    table = {"title": "First", "evaluation": "occupations", "columns": ["bias/gender"], "rows": rows}
    config["tables"] = {"first": table, **config["tables"]}
    config["figures"]["curves"] = {"kind": "training_curves", "title": "Curves", "runs": ["ours_gender", "ours_race"]}
    study = load_study(config, root)
    assert [entry["label"] for entry in study.figure_spec("curves")["runs"]] == ["ours_gender", "ours_race"]
    assert figure_logs(study, "curves") == [("ours_gender", 0), ("ours_race", 0)]


def test_a_run_in_several_groups_is_called_by_its_label_alone(config: dict[str, Any], root: Path) -> None:
    groups = ("Occupations", "Sports")
    rows = [{"run": "ours_gender", "label": "Ours", "group": group} for group in groups]
    table = {"title": "First", "evaluation": "occupations", "columns": ["bias/gender"], "rows": rows}
    config["tables"] = {"first": table, **config["tables"]}
    curves = {"kind": "training_curves", "title": "Curves", "runs": ["ours_gender", "ours_race"]}
    config["figures"] = {"curves": curves, "named": {**curves, "labels": {"ours_gender": "Mine"}}}
    study = load_study(config, root)
    labels = {name: [it["label"] for it in study.figure_spec(name)["runs"]] for name in config["figures"]}
    assert labels == {"curves": ["Ours", "Ours (Race)"], "named": ["Mine", "Ours (Race)"]}
