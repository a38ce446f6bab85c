"""Prompt sets: ids, articles, and files that are none; the shipped occupations."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from distalign.errors import UserError
from distalign.prompts import Prompt, PromptSet, load_prompts, load_split

OCCUPATIONS = Path(__file__).parents[3] / "resources" / "prompts" / "occupations.json"
SPLITS = {"train": ["baker", "Electrical Engineer"], "validation": ["usher"], "test": ["judge"]}


def write(path: Path, **content: Any) -> Path:
    file = path / "prompts.json"
    file.write_text(json.dumps({"template": "face of {a} {concept}", "splits": SPLITS, **content}))
    return file


def test_prompts_have_ids_texts_and_articles(tmp_path: Path) -> None:
    prompts = load_prompts(write(tmp_path))
    assert prompts.split("train") == [
        Prompt("baker", "face of a baker", "baker", "train", set="prompts"),
        Prompt("electrical-engineer", "face of an Electrical Engineer", "Electrical Engineer", "train", set="prompts"),
    ]
    assert [prompt.text for prompt in prompts.split("validation")] == ["face of an usher"]


def test_a_split_in_groups(tmp_path: Path) -> None:
    train = {"crafts": ["baker"], "offices": ["Electrical Engineer"]}
    prompts = load_prompts(write(tmp_path, splits=SPLITS | {"train": train})).split("train")
    assert [(prompt.concept, prompt.group) for prompt in prompts] == [
        ("baker", "crafts"), ("Electrical Engineer", "offices"),
    ]  # fmt: skip


def test_prompts_written_out_and_splits_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, splits={"test": [{"concept": "judge", "text": "A judge reads. Oil painting"}]})
    (prompt,) = load_prompts(path).split("test")
    assert (prompt.id, prompt.text, prompt.concept) == (
        "a-judge-reads-oil-painting",
        "A judge reads. Oil painting",
        "judge",
    )
    assert load_prompts(path).split("train") == []


def test_a_split_of_several_sets(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    paths = [write(tmp_path), write(tmp_path / "other", splits={"train": ["usher"]}).rename(tmp_path / "ushers.json")]
    assert [(prompt.concept, prompt.set) for prompt in load_split(paths, "train")] == [
        ("baker", "prompts"), ("Electrical Engineer", "prompts"), ("usher", "ushers"),
    ]  # fmt: skip


def test_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no split 'dev'; it has train, validation, test"):
        load_prompts(write(tmp_path)).split("dev")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"template": None}, "should hold a template"),
        ({"template": "face"}, r"should contain \{concept\}"),
        ({"template": "{concept} {x}"}, "of other fields only"),
        ({"template": "{concept} {}"}, "of other fields only"),
        ({"template": "{concept"}, "malformed"),
        ({"splits": {}}, "splits should be some of train, validation, test"),
        ({"splits": {**SPLITS, "dev": ["x"]}}, "splits should be some of train, validation, test"),
        ({"splits": {"test": [{"text": "a judge"}]}}, r"splits.test\[0\] is .* a concept and the text of its prompt"),
        ({"splits": {"test": [{"concept": "judge", "text": ""}]}}, r"splits.test\[0\] is"),
        ({"splits": {"test": [{"concept": "judge", "text": "Hi!"}, {"concept": "x", "text": "hi"}]}}, "same prompt"),
        ({"splits": {**SPLITS, "test": []}}, "split test should be a list of concepts, and not empty"),
        ({"splits": {**SPLITS, "test": "judge"}}, "split test should be a list"),
        ({"splits": {**SPLITS, "train": {}}}, "split train should be a list"),
        ({"splits": {**SPLITS, "train": {"crafts": []}}}, "split train.crafts should be a list"),
        ({"splits": {**SPLITS, "train": {"crafts": [7]}}}, r"splits.train.crafts\[0\] is 7"),
        ({"splits": {**SPLITS, "test": [7]}}, r"splits.test\[0\] is 7"),
        ({"splits": {**SPLITS, "test": ["?"]}}, r"splits.test\[0\] is '\?'"),
        (
            {"splits": {**SPLITS, "test": ["Baker"]}},
            r"'face of a Baker' \(test\) and 'face of a baker' \(train\) are the same prompt",
        ),
    ],
)
def test_files_that_are_no_prompt_sets(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_prompts(write(tmp_path, **content))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prompts.json cannot be read: No such file"):
        load_prompts(tmp_path / "prompts.json")
    (tmp_path / "prompts.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        load_prompts(tmp_path / "prompts.json")


def test_shipped_occupations() -> None:
    prompts = load_prompts(OCCUPATIONS)
    assert [len(prompts.split(name)) for name in ("train", "validation", "test")] == [1000, 10, 50]
    assert prompts.split("validation")[0].text == "A photo of the face of a housekeeping cleaner, a person"
    assert {"senator", "gas compressor and gas pumping station operator"} <= {p.concept for p in prompts.split("test")}
    assert all(re.fullmatch(r"[a-z][a-z0-9-]*", prompt.id) for prompt in prompts.prompts)


@pytest.mark.parametrize("name", ["contexts", "sports", "descriptors", "styles"])
@pytest.mark.parametrize("world", ["", "mini_"])
def test_other_shipped_sets(world: str, name: str) -> None:
    prompts = load_prompts(OCCUPATIONS.parent / f"{world}{name}.json")
    splits = ["test"] if name == "styles" else ["train", "validation", "test"]
    assert [split for split in ("train", "validation", "test") if prompts.split(split)] == splits
    trained = {prompt.concept for prompt in prompts.split("train")}
    assert not trained & {prompt.concept for prompt in prompts.split("test")}


def test_fewer_prompts_are_spread_evenly() -> None:
    prompts = tuple(Prompt(str(i), str(i), str(i), "test") for i in range(10))
    assert [prompt.id for prompt in PromptSet(prompts).split("test", 4)] == ["0", "2", "5", "7"]
    assert len(PromptSet(prompts).split("test", 11)) == 10
