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
