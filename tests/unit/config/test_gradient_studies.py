"""Studies of gradient estimators: completed by the preset, limited by it, and wrong in clear words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distalign.config.gradient_studies import early_spec
from distalign.config.study import load_study


@pytest.fixture
def studied(raw: dict[str, Any]) -> dict[str, Any]:
    raw["gradient_studies"] = {
        "curves": {"kind": "loss", "title": "Curves", "runs": 3},
        "sizes": {
            "kind": "magnitude",
            "title": "Sizes",
            "runs": 20,
            "guidance": [1, 7.5],
            "sampler_steps": [2, 10, 40],
            "backbones": ["early", "shipped"],
        },
    }
    return raw


def test_a_preset_fills_what_a_study_leaves_open(studied: dict[str, Any], root: Path) -> None:
    study = load_study(studied, root)
    curves = study.gradient_study_spec("curves")
    defaults = study.preset.defaults
    assert curves["guidance"] == [defaults["guidance"]]
    assert curves["sampler_steps"] == defaults["sampler_steps"][:1]
    assert {"iterations", "learning_rate", "encoders"} <= curves.keys()
    assert "title" not in curves
    sizes = study.gradient_study_spec("sizes")
    assert sizes["early"] == early_spec(study.preset)
    assert "iterations" not in sizes


def test_a_preset_limits_studies_and_may_have_no_early_model(studied: dict[str, Any], root: Path) -> None:
    smoke = load_study({**studied, "preset": "smoke"}, root).gradient_studies["sizes"]
    assert (smoke.runs, smoke.sampler_steps) == (2, [2, 3])
    sd15 = load_study({**studied, "preset": "sd15"}, root)
    assert sd15.gradient_studies["sizes"].backbones == ["shipped"]
    assert early_spec(sd15.preset) == {}


def test_without_a_budget_or_a_model_there_is_no_study(studied: dict[str, Any], own_root: Path) -> None:
    studied["gradient_studies"]["sizes"]["backbones"] = ["early"]
    sd15 = {**studied, "preset": "sd15"}
    assert list(load_study(sd15, own_root).gradient_studies) == ["curves"]
    preset = own_root / "presets/sd15.yaml"
    lines = [line for line in preset.read_text().splitlines() if not line.startswith("gradient_study")]
    preset.write_text("\n".join(lines))
    assert load_study(sd15, own_root).gradient_studies == {}


def test_a_study_changes_no_run(studied: dict[str, Any], root: Path) -> None:
    before = load_study({**studied, "gradient_studies": {}}, root)
    assert load_study(studied, root).finetune_spec("ours_gender", 0) == before.finetune_spec("ours_gender", 0)


def test_wrong_studies(studied: dict[str, Any], problems_of: Callable[[Any], dict[str, str]]) -> None:
    studied["gradient_studies"]["curves"] |= {"estimators": ["exact", "adjsted"], "runs": 0, "stepps": 3}
    studied["gradient_studies"]["sizes"] |= {"guidance": [1, 2, 1], "backbones": ["erly"]}
    studied["gradient_studies"]["frequencies"] = {"kind": "los", "title": "x", "runs": 1}
    expected = {
        "gradient_studies.curves.estimators[1]": "did you mean 'adjusted'?",
        "gradient_studies.curves.runs": "should be greater than or equal to 1",
        "gradient_studies.curves.stepps": "unknown key; valid:",
        "gradient_studies.sizes.guidance[2]": "this is listed twice",
        "gradient_studies.sizes.backbones[0]": "did you mean 'early'?",
        "gradient_studies.frequencies.kind": "did you mean 'loss'?",
    }
    found = problems_of(studied)
    assert found.keys() == expected.keys()
    for path, message in expected.items():
        assert message in found[path], path


def test_a_study_needs_a_name_of_its_own(studied: dict[str, Any], problems_of: Callable[[Any], dict[str, str]]) -> None:
    studied["gradient_studies"]["frequencies"] = studied["gradient_studies"].pop("sizes")
    assert "a figure has this name" in problems_of(studied)["gradient_studies.frequencies"]
