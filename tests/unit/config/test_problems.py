"""Everything wrong is listed at once, with its place, its value and the nearest valid name; never a traceback."""

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from distalign.config.files import read_yaml
from distalign.config.problems import ConfigError
from distalign.config.study import load_study
from distalign.errors import UserError
from helpers.workflow import edit_yaml

from .conftest import CONFIG, listed

ProblemsOf = Callable[[Any], dict[str, str]]


def test_all_problems_at_once_each_with_its_place_and_the_nearest_name(
    raw: dict[str, Any], problems_of: ProblemsOf
) -> None:
    runs = raw["runs"]
    runs["ours_gender"] |= {"iterations": -5, "rnk": 5}
    runs["ours_race"]["from"] = "ours_gendr"
    runs["shares"] = {
        "from": "ours_gender",
        "align": {"gender": {"femal": 1}, "race": {"asian": 0.4}, "agee": "uniform"},
    }
    runs["uneven"] = {"from": "ours_gender", "images_per_step": 61, "gradient": {"weights": "adjust"}}
    runs["unsure"] = {"from": "ours_gender", "method": "adjusted_dtf", "rank": 3}
    runs["reads"] = {"from": "ours_gender", "classifier": "los"}
    table = raw["tables"]["comparison"]
    table["evaluation"] = "occupation"
    table["columns"].append("bias/gendr")
    table["rows"] += [
        {"run": {"from": "ours_gender", "rnk": 8}},
        {"label": "nothing"},
        {"run": "orginal", "paper": "x"},
        {"run": "original", "classifier": "raeder"},
    ]
    raw["figures"]["frequencies"]["runs"] = ["ours_genderrace"]
    raw["figures"]["contact_sheet"] |= {"evaluation": None, "kind": "contact_shet"}
    raw["figures"]["frequencies"]["attributes"] = ["gendr"]
    raw["figures"]["training_curves"]["images"] = 3
    raw["tabels"] = {}
    raw["seeds"] = [0, 1, 0]
    found = problems_of(raw)
    expected = {
        "runs.ours_gender.iterations": "should be greater than or equal to 1",
        "runs.ours_gender.rnk": "unknown key; did you mean 'rank'?",
        "runs.ours_race.from": "no run of this name; did you mean 'ours_gender'?",
        "runs.shares.align.gender.femal": "unknown key; did you mean 'female'?",
        "runs.shares.align.race": "the shares sum to 0.4, not to 1",
        "runs.shares.align.agee": "unknown key; did you mean 'age'?",
        "runs.uneven.images_per_step": "not divisible by prompts_per_step: 4",
        "runs.uneven.gradient.weights": "did you mean 'adjusted'?",
        "runs.unsure.method": "no method of this name; did you mean 'adjusted_dft'?",
        "runs.reads.classifier": "no classifier of this name; did you mean 'loss'?",
        "tables.comparison.evaluation": "no evaluation of this name; did you mean 'occupations'?",
        "tables.comparison.columns[6]": "no metric of this name; did you mean 'bias/gender'?",
        "tables.comparison.rows[7].classifier": "no classifier of this name; did you mean 'reader'?",
        "tables.comparison.rows[4].run.rnk": "unknown key; did you mean 'rank'?",
        "tables.comparison.rows[5].run": "this key is missing",
        "tables.comparison.rows[6].run": "no run of this name; did you mean 'original'?",
        "tables.comparison.rows[6].paper": "no such numbers",
        "figures.frequencies.runs[0]": "no run of this name; did you mean 'ours_gender_race'?",
        "figures.contact_sheet.kind": "did you mean 'contact_sheet'?",
        "figures.frequencies.attributes[0]": "no attribute of this name; did you mean 'gender'?",
        "figures.training_curves.images": "has no meaning for kind 'training_curves'; valid: ",
        "tabels": "unknown key; did you mean 'tables'?",
        "seeds[2]": "this seed is listed twice",
    }
    assert found.keys() == expected.keys()
    for path, message in expected.items():
        assert message in found[path], path


@pytest.mark.parametrize(
    "name", ["../../x", "; rm -rf ~", "$(x)", "`x`", "", "a b", ".hidden", "-rf", "a/b", "a\n", "x" * 101, "ü"]
)
def test_names_that_are_no_names(raw: dict[str, Any], problems_of: ProblemsOf, name: str) -> None:
    raw["runs"][name] = {"from": "ours_gender", "rank": 3}
    assert any("not a valid name" in message for message in problems_of(raw).values())


@pytest.mark.parametrize("name", ["../../etc/passwd", "minii", 3, None, ["mini"]])
def test_presets_that_are_none(raw: dict[str, Any], problems_of: ProblemsOf, name: Any) -> None:
    assert "preset" in problems_of({**raw, "preset": name})


def test_cycles_are_reported_once(raw: dict[str, Any], problems_of: ProblemsOf) -> None:
    raw["runs"] |= {"a": {"from": "b"}, "b": {"from": "c"}, "c": {"from": "a"}, "d": {"from": "b"}, "e": {"from": "e"}}
    assert problems_of(raw) == {"runs.a.from": "a cycle: a -> b -> c -> a", "runs.e.from": "a cycle: e -> e"}


def test_two_runs_of_the_same_meaning(raw: dict[str, Any], problems_of: ProblemsOf) -> None:
    raw["runs"] |= {"again": {"from": "ours_gender", "align": {"gender": {"male": 0.5, "female": 0.5}}}}
    assert problems_of(raw) == {"runs.again": "means the same as run 'ours_gender'; remove one"}


def test_seeds_of_rows(raw: dict[str, Any], problems_of: ProblemsOf) -> None:
    raw["tables"]["comparison"]["rows"] += [
        {"run": "ours_gender", "seeds": [1, 1]},
        {"run": {"from": "ours_gender", "seeds": [2, 2], "rank": 3}},
    ]
    assert problems_of(raw) == {
        "tables.comparison.rows[4].seeds[1]": "this seed is listed twice",
        "tables.comparison.rows[5].run.seeds[1]": "this seed is listed twice",
    }


def test_prompt_sets(raw: dict[str, Any], problems_of: ProblemsOf) -> None:
    raw["runs"]["ours_gender"]["prompt_sets"] = ["occupation", "sports"]
    raw["runs"]["ours_gender_race"]["prompt_sets"] = ["styles"]
    raw["runs"]["ours_race"]["prompt_sets"] = ["sports", "sports"]
    raw["evaluations"] |= {"a": {"prompt_set": "sport"}, "b": {"prompt_set": "styles", "prompts": "train"}}
    found = problems_of(raw)
    assert {where: message.partition(";")[0] for where, message in found.items()} == {
        "runs.ours_gender.prompt_sets": "no prompt set of this name",
        "runs.ours_gender_race.prompt_sets": "prompt set 'styles' has no train split",
        "runs.ours_race.prompt_sets": "the same prompt set is listed twice",
        "evaluations.a.prompt_set": "no prompt set of this name",
        "evaluations.b.prompts": "prompt set 'styles' has no such split",
    }


def test_the_original_has_no_settings(raw: dict[str, Any], problems_of: ProblemsOf) -> None:
    raw["runs"]["original"] |= {"rank": 4}
    assert "has no meaning for method 'original'" in problems_of(raw)["runs.original.rank"]


@pytest.mark.parametrize(
    ("entry", "path", "message"),
    [
        ({"train": ["prompt_prefix"], "prefix_tokens": None}, "prefix_tokens", "needed to train a prompt_prefix"),
        ({"train": ["prompt_prefix", "unet"], "prefix_tokens": 5}, "train", "prompt_prefix is trained alone"),
        ({"train": ["unet", "unet"]}, "train", "listed twice"),
        ({"train": []}, "train", "at least 1 item"),
        ({"rank": None}, "rank", "needed to train text_encoder"),
        ({"gradient": {"weights": "adjusted", "damping": 0.5}}, "gradient.damping", "only for weights: exact"),
        ({"gradient": {"weights": "released", "steps": 11}}, "gradient.steps", "more than the fewest sampler_steps"),
        ({"gradient": {"weights": "exact", "steps": 4}}, "gradient.steps", "sweep passes every step"),
        ({"gradient": {"weights": "adjusted", "last": 1}}, "gradient.last", "only for weights: exact"),
        ({"gradient": {"weights": "exact", "last": 11}}, "gradient.last", "more than the fewest sampler_steps"),
        ({"gradient": {"weights": "exact", "last": 1, "truncate": "random"}}, "gradient.truncate", "not together"),
        ({"gradient": {"weights": "exact", "last": 2, "renoise": 2}}, "gradient.renoise", "needs last: 1"),
        ({"gradient": {"weights": "adjusted", "choice": "even"}}, "gradient.choice", "needs gradient.steps"),
        ({"targets": "batch_mean", "align": {"gender": {"male": 1}}}, "targets", "share above 0 for every class"),
        ({"align": {}}, "align", "needs an attribute to align"),
        ({"align": {"gender": "unifrom"}}, "align.gender", "should be 'uniform' or shares of female, male"),
        ({"prompts_per_step": 20}, "prompts_per_step", "more than the 8 prompts to finetune on"),
        ({"align": {"gender": {"femal": 1}}}, "align.gender.femal", "did you mean 'female'"),
        ({"iterations": True}, "iterations", "should be a number"),
        ({"iterations": None}, "iterations", "given neither here nor by preset"),
        ({"seeds": []}, "seeds", "at least 1 item"),
        ({"seeds": [1, 1]}, "seeds[1]", "listed twice"),
        ({"learning_rate": float("nan")}, "learning_rate", "finite"),
        ({"loss": 3}, "loss", "should be a mapping"),
    ],
)
def test_settings_that_do_not_go_together(
    raw: dict[str, Any], problems_of: ProblemsOf, entry: dict[str, Any], path: str, message: str
) -> None:
    raw["runs"]["wrong"] = {"from": "ours_gender", **entry}
    assert message in problems_of(raw)[f"runs.wrong.{path}"]


def test_an_attribute_the_classifier_does_not_read(raw: dict[str, Any], root: Path) -> None:
    raw["runs"]["wrong"] = {"from": "ours_race", "classifier": "loss_celeba"}
    found = listed({**raw, "preset": "sd15"}, root)
    assert found == {"runs.ours_race.align.race": "classifier 'loss_celeba' does not read race (for run 'wrong')"}


def test_columns_the_evaluation_classifier_does_not_read(raw: dict[str, Any], root: Path) -> None:
    raw["evaluations"]["occupations"]["classifier"] = "loss_celeba"
    found = listed({**raw, "preset": "sd15"}, root)
    assert found["tables.comparison.columns[1]"] == "classifier 'loss_celeba' does not read race"


def test_columns_the_classifier_of_a_row_does_not_read(raw: dict[str, Any], root: Path) -> None:
    raw["tables"]["comparison"]["rows"].append({"run": "original", "classifier": "loss_celeba"})
    found = listed({**raw, "preset": "sd15"}, root)
    assert found["tables.comparison.columns[1]"] == "classifier 'loss_celeba' does not read race"


@pytest.mark.parametrize(
    ("attribute", "dataset", "source"), [("race7", "loss_faces", "rendered"), ("race", "celeba", "celeba")]
)
def test_labels_that_a_data_set_does_not_have(
    raw: dict[str, Any], own_root: Path, attribute: str, dataset: str, source: str
) -> None:
    name = "sd15" if source == "celeba" else "mini"
    own_preset(own_root, name, {"classifiers": {"loss": {"labels": {attribute: dataset}}}})
    found = listed({**raw, "preset": "own"}, own_root)[f"classifiers.loss.labels.{attribute}"]
    assert found == f"faces of source {source} have no such labels; those of " + (
        "fairface have" if attribute == "race7" else "rendered, fairface have"
    )


def test_both_groupings_of_race_are_not_aligned_together(raw: dict[str, Any], problems_of: ProblemsOf) -> None:
    raw["runs"]["both"] = {"from": "ours_gender", "align": {"race": "uniform", "race7": "uniform"}}
    assert problems_of(raw)["runs.both.align"] == "race and race7 are two groupings of the same; align one of them"


def own_preset(root: Path, base: str, settings: dict[str, Any]) -> None:
    """A preset `own` from another."""
    (root / "presets/own.yaml").write_text(yaml.safe_dump({"from": base, "description": "own", **settings}))


def test_problems_of_a_preset_name_its_file(raw: dict[str, Any], own_root: Path) -> None:
    path = own_root / "presets" / "mini.yaml"
    text = path.read_text().replace("rank: 8", "rnk: 8").replace("prompts_per_step: 4", "prompts_per_step: 7")
    path.write_text(text.replace("  faces: bank_faces", "  faces: bank_face"))
    with pytest.raises(ConfigError, match=r"presets/mini.yaml: \d problems") as caught:
        load_study(raw, own_root)
    message = str(caught.value)
    for expected in ("defaults.rnk: 8", "did you mean 'rank'?", "bank.faces", "did you mean 'bank_faces'?"):
        assert expected in message
    assert "defaults.images_per_step: 64\n      not divisible by prompts_per_step: 7" in message


@pytest.mark.parametrize("bank", [{}, {"faces": "bank_faces", "path": "bank.safetensors"}])
def test_a_bank_is_computed_or_ready_made(raw: dict[str, Any], own_root: Path, bank: dict[str, str]) -> None:
    edit_yaml(own_root / "presets" / "mini.yaml", bank=bank)
    with pytest.raises(ConfigError, match="needs either faces or path"):
        load_study(raw, own_root)


def test_a_ready_made_bank_depends_on_no_faces(raw: dict[str, Any], own_root: Path) -> None:
    edit_yaml(own_root / "presets" / "mini.yaml", bank={"path": "bank.safetensors"})
    assert load_study(raw, own_root).bank_spec()["bank"] == {"path": "bank.safetensors"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from: smok", "did you mean 'smoke'?"),
        ("from: wrong", "a cycle: wrong -> wrong"),
        ("- a list", "should be a mapping"),
        ("a: [1", "not valid YAML"),
        ("from: mini\nfrom: smoke", "given twice"),
        ("from: mini\nbackbone: {source: hub}", "also needs id and revision"),
        ("from: mini\nby_attributes: {race+gender: {rank: 2}}", "in the order gender+race+age"),
        ("from: mini\nby_trained: {unet+text_encoder: {rank: 2}}", "in the order text_encoder+unet+prompt_prefix"),
        (
            "from: mini\njob: {needs: {finetun: {mem_mb: 1}}}",
            "job.needs.finetun: {\"mem_mb\": 1}\n      unknown key; did you mean 'finetune'?",
        ),
        ("from: mini\njob: {needs: {finetune: {mem: 1}}}", "unknown key; did you mean 'mem_mb'?"),
        ("from: mini\njob: {needs: {finetune: {runtime: 2h}}}", "should be a valid integer"),
        ("from: mini\nprompts: {occupations: {file: nowhere.json}}", "No such file"),
        ("", "this key is missing"),
    ],
)
def test_presets_that_cannot_be_read(raw: dict[str, Any], own_root: Path, text: str, message: str) -> None:
    (own_root / "presets" / "wrong.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"presets/wrong.yaml") as caught:
        load_study({**raw, "preset": "wrong"}, own_root)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"template": "x"}', '{"template": "x", "splits": []}'])
def test_prompt_files_that_are_none(raw: dict[str, Any], own_root: Path, content: str | None) -> None:
    path = own_root / "resources/prompts/mini_occupations.json"
    path.unlink() if content is None else path.write_text(content)
    assert list(listed(raw, own_root)) == ["prompts.occupations.file"]


@pytest.mark.parametrize("content", [None, "[]", "tables: 3", "tables: {table1: {rows: {ours_gender: {clip_t: x}}}}"])
def test_papers_numbers_that_are_none(raw: dict[str, Any], own_root: Path, content: str | None) -> None:
    path = own_root / "resources/paper_numbers.yaml"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ConfigError, match=r"resources/paper_numbers.yaml"):
        load_study(raw, own_root)


def test_yaml_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"config.yaml"):
        read_yaml(path)
    path.write_text("a: {b: 1, b: 2}")
    with pytest.raises(UserError, match=r"the key 'b' is given twice(.|\n)*line 1"):
        read_yaml(path)


def test_no_value_anywhere_makes_a_traceback(root: Path) -> None:
    junk = [None, -1, 2.5, True, "?", "", [], [None], {}, {"x": 1}, {3: 4}, [[1]], float("inf")]
    for index, place in enumerate(places(CONFIG)):
        config = copy.deepcopy(CONFIG)
        target = config
        for part in place[:-1]:
            target = target[part]
        target[place[-1]] = junk[index % len(junk)]
        try:
            load_study(config, root)
        except ConfigError as error:
            assert error.problems, place


@pytest.mark.parametrize("raw", [None, [], "config", {}, {"preset": "mini"}, {3: 4}])
def test_what_is_no_configuration_at_all(raw: Any, root: Path) -> None:
    with pytest.raises(ConfigError):
        load_study(raw, root)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a nested value."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


@pytest.mark.parametrize("given", [{}, {"path": "data/portraits"}, {"size": 512}])
def test_photographs_need_a_folder_and_a_size(own_root: Path, raw: dict[str, Any], given: dict[str, Any]) -> None:
    path = own_root / "presets/mini.yaml"
    preset = read_yaml(path) | {"quality": {"source": "directory", **given}}
    path.write_text(yaml.safe_dump(preset))
    missing = " and ".join(key for key in ("path", "size") if key not in given)
    assert listed(raw, own_root)["quality"] == f"source directory also needs {missing}"


def test_images_that_the_preset_s_gpus_cannot_share(own_root: Path, raw: dict[str, Any]) -> None:
    edit_yaml(own_root / "presets/sd15.yaml", job={"gpu": 5})
    with pytest.raises(ConfigError, match=r"24 images cannot be divided evenly among 5 processes; take 20 or 25"):
        load_study(raw | {"preset": "sd15"}, own_root)
    edit_yaml(own_root / "presets/sd15.yaml", job={"gpu": 8})
    load_study(raw | {"preset": "sd15"}, own_root)
