import copy
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from distalign.errors import UserError
from distalign.prompts import PromptSet, load_prompts
from distalign.released.prompts import convert_prompts
from helpers.released import OCCUPATION, OTHERS


def converted(content: Any, path: Path) -> PromptSet:
    path.write_text(json.dumps(convert_prompts(json.dumps(content).encode(), "x.json")))
    return load_prompts(path)


def test_occupations_are_what_the_authors_code_makes_of_them(tmp_path: Path) -> None:
    prompts = converted(OCCUPATION, tmp_path / "occupation.json")
    assert [prompt.text for prompt in prompts.split("train")] == [
        "A photo of the face of a actor, a person",  # no `an`: so in the authors' code
        "A photo of the face of a electrical engineer, a person",
        "A photo of the face of a nurse, a person",
    ]
    assert [(prompt.id, prompt.concept) for prompt in prompts.split("validation")] == [("librarian", "librarian")]
    assert [(prompt.id, prompt.concept) for prompt in prompts.split("test")] == [("senator",) * 2, ("judge",) * 2]


def test_several_templates_make_a_prompt_each(tmp_path: Path) -> None:
    content = OCCUPATION | {"prompt_templates_train": ["A photo of a {occupation}", "{occupation}, at work"]}
    prompts = converted(content, tmp_path / "occupation.json")
    texts = [prompt.text for prompt in prompts.split("train")]
    assert texts[:3] == ["A photo of a actor", "A photo of a electrical engineer", "A photo of a nurse"]
    assert texts[3:] == ["actor, at work", "electrical engineer, at work", "nurse, at work"]
    assert [prompt.concept for prompt in prompts.split("train")][::3] == ["actor", "actor"]
    assert prompts.split("test")[0].text == OCCUPATION["test_prompts"][0]
    assert prompts.split("test")[0].concept == "senator"


@pytest.mark.parametrize("name", OTHERS)
def test_prompts_that_are_written_out_stay_as_they_are(tmp_path: Path, name: str) -> None:
    prompts = converted(OTHERS[name], tmp_path / "other.json")
    keys = {"train": "train_prompts", "validation": "val_prompts", "test": "test_prompts"}
    for split, key in keys.items():
        texts = [prompt.text for prompt in prompts.split(split)]
        assert texts == OTHERS[name].get(key, [])
    assert all(prompt.concept == prompt.text for prompt in prompts.prompts)


def test_a_prompt_of_two_splits_stays_in_the_last_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = copy.deepcopy(OCCUPATION)
    content["occupations_train_set"] += ["Nurse", "judge", "librarian"]
    with caplog.at_level(logging.WARNING):
        made = convert_prompts(json.dumps(content).encode(), "occupation.json")
    assert made["splits"] == {
        "train": ["actor", "electrical engineer", "nurse"],
        "validation": ["librarian"],
        "test": ["senator", "judge"],
    }
    assert "3 repeated prompts were left out" in made["description"]
    assert "3 prompts are there more than once" in caplog.text


def test_keys_that_are_not_used_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        convert_prompts(json.dumps(OCCUPATION | {"occupations_more": ["x"]}).encode(), "occupation.json")
    assert "occupation.json: not used: occupations_more" in caplog.text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "x.json: not a JSON file"),
        (b"[]", "should hold lists by name"),
        (json.dumps({"prompts": ["a"]}).encode(), r"lacks test_prompts. It has prompts"),
        (json.dumps({"test_prompts": [3]}).encode(), "test_prompts should be a list of words or texts"),
        (json.dumps({"test_prompts": []}).encode(), "test_prompts should be a list of words or texts, and not empty"),
        (json.dumps(OCCUPATION | {"occupations_val_set": None}).encode(), "occupations_val_set should be a list"),
        (json.dumps({"prompt_templates_train": ["{occupation}"]}).encode(), "occupations_train_set should be a list"),
        (
            json.dumps(OCCUPATION | {"prompt_templates_test": ["a {job}"]}).encode(),
            r"prompt_templates_test has 'a \{job\}', which should contain \{occupation\} once",
        ),
    ],
)
def test_what_is_wrong_is_named(data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        convert_prompts(data, "x.json")
