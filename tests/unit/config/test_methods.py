"""Runs of methods that are not finetuned: their settings, their search, what they mean."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distalign.config.fingerprint import fingerprint
from distalign.config.method_docs import methods_page
from distalign.config.methods import METHODS
from distalign.config.specs import run_meaning
from distalign.config.study import load_study
from helpers.workflow import edit_yaml

Problems = Callable[[Any], dict[str, str]]
ORACLE = {"method": "explicit_prompt", "align": {"gender": "uniform"}}
RELEASED = {
    "method": "released",
    "align": {"gender": "uniform"},
    "settings": {"archive": "data/nowhere.zip", "folder": "checkpoint"},
}


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        ({"settings": {"assignmnt": "iid"}}, "settings.assignmnt", "no such setting; did you mean 'assignment'?"),
        ({"settings": {"assignment": "often"}}, "settings.assignment", "'quota' or 'iid'"),
        ({"search": {"assignment": ["quota", "iid!"]}}, "search.assignment[1]", "'quota' or 'iid'"),
        ({"search": {"strength": [1, 2]}}, "search.strength", "no such setting"),
        ({"search": {"assignment": ["quota"]}}, "search.assignment", "at least 2"),
        ({"rank": 4}, "rank", "has no meaning for method 'explicit_prompt', which is not finetuned by this trainer"),
        ({"align": {}}, "align", "needs an attribute to align"),
    ],
)
def test_problems_of_settings(
    problems_of: Problems, raw: dict[str, Any], changes: dict[str, Any], place: str, message: str
) -> None:
    raw["runs"]["oracle"] = ORACLE | changes
    found = problems_of(raw)
    assert message in found[f"runs.oracle.{place}"]


def test_finetuned_runs_have_no_settings_of_a_method(problems_of: Problems, raw: dict[str, Any]) -> None:
    raw["runs"]["ours_gender"]["settings"] = {"assignment": "iid"}
    assert "no settings of its own" in problems_of(raw)["runs.ours_gender.settings"]


def test_a_method_without_a_target_takes_uniform_only(problems_of: Problems, raw: dict[str, Any]) -> None:
    fixed = next(name for name, it in METHODS.items() if not it.takes_target and name != "original")
    raw["runs"]["fixed"] = {"method": fixed, "align": {"gender": {"female": 0.9, "male": 0.1}}}
    assert "cannot be given a target other than uniform" in problems_of(raw)["runs.fixed.align.gender"]


def test_a_target_that_needs_a_setting(problems_of: Problems, raw: dict[str, Any]) -> None:
    raw["runs"]["neutral"] = {"method": "concept_algebra", "align": {"gender": {"female": 0.9, "male": 0.1}}}
    raw["runs"]["sampled"] = raw["runs"]["neutral"] | {"settings": {"target": "sampled"}}
    found = problems_of(raw)
    assert "other than uniform without settings.target: sampled" in found["runs.neutral.align.gender"]
    assert "runs.sampled.align.gender" not in found


def test_spelling_out_a_default_means_the_same(root: Path, raw: dict[str, Any]) -> None:
    raw["runs"] |= {"oracle": ORACLE, "iid": ORACLE | {"settings": {"assignment": "iid"}}}
    study = load_study(raw, root)
    meaning = run_meaning(study.runs["oracle"])
    assert meaning["settings"] == {"assignment": "quota"}
    assert "rank" not in meaning
    assert "validation_images" not in meaning  # nothing is measured
    raw["runs"]["oracle"] = ORACLE | {"settings": {"assignment": "quota"}}
    assert fingerprint(run_meaning(load_study(raw, root).runs["oracle"])) == fingerprint(meaning)
    specs = [study.image_spec(run, 0, "occupations") for run in ("oracle", "iid", "original")]
    assert len({fingerprint(spec) for spec in specs}) == 3
    assert not study.finetuned("oracle")
    assert study.adapted("oracle")


def test_a_search_is_part_of_the_meaning(root: Path, raw: dict[str, Any]) -> None:
    raw["runs"]["oracle"] = ORACLE | {"search": {"assignment": ["quota", "iid"]}, "settings": {"assignment": "iid"}}
    spec = load_study(raw, root).fit_spec("oracle", 0)
    assert spec["search"] == {"assignment": ["quota", "iid"]}
    assert spec["settings"] == {}
    assert {"classifier", "validation_images", "detector", "validation_prompts"} <= spec.keys()


def test_what_the_preset_says_of_a_method(own_root: Path, raw: dict[str, Any]) -> None:
    edit_yaml(own_root / "presets" / "mini.yaml", by_method={"explicit_prompt": {"settings": {"assignment": "iid"}}})
    raw["runs"]["oracle"] = ORACLE
    assert run_meaning(load_study(raw, own_root).runs["oracle"])["settings"] == {"assignment": "iid"}


def test_the_page_names_every_method_and_setting() -> None:
    page = methods_page("command")
    for name, method in METHODS.items():
        assert f"`{name}`" in page
        for setting in method.settings:
            assert f"| `{setting}` |" in page


def test_the_page_says_which_setting_a_target_and_a_class_per_image_need() -> None:
    (row,) = [line for line in methods_page("command").splitlines() if "(`concept_algebra`)" in line]
    *_, target, assigned, _cost = row.strip("| ").split(" | ")
    assert target == assigned == "with `target: sampled`"


def test_a_released_adapter_says_its_file_which_need_not_be_there(
    problems_of: Problems, raw: dict[str, Any], root: Path
) -> None:
    raw["runs"]["released"] = RELEASED
    study = load_study(raw, root)
    assert study.converted("released")
    assert study.adapted("released")
    assert not study.finetuned("released")
    assert not study.converted("original")
    spec = study.fit_spec("released", 0)
    assert spec["settings"] == {**RELEASED["settings"], "ema": True}
    assert spec.keys() == {"method", "version", "align", "settings", "backbone"}
    assert study.image_spec("released", 0, "occupations")["adapter"]["fingerprint"] == fingerprint(spec)
    raw["runs"]["released"] = RELEASED | {"settings": {"folder": "checkpoint"}}
    assert "needed by method 'released': The zip file" in problems_of(raw)["runs.released.settings.archive"]
    raw["runs"]["released"] = RELEASED | {"search": {"ema": [True, False]}}
    assert "nothing to choose from" in problems_of(raw)["runs.released.search"]
