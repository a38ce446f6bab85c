"""Runs, rows and specifications of checked configurations."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from distalign.config.attributes import ATTRIBUTES, PAPER_ATTRIBUTES
from distalign.config.files import read_yaml
from distalign.config.fingerprint import fingerprint
from distalign.config.models import RunSettings
from distalign.config.specs import run_meaning
from distalign.config.study import Study, load_study
from helpers.workflow import edit_yaml


def inline(raw: dict[str, Any], **entry: Any) -> dict[str, Any]:
    raw["tables"]["comparison"]["rows"].append({"run": {"from": "ours_gender", **entry}})
    return raw


def last_run(study: Study) -> str:
    return study.tables["comparison"].rows[-1].run


def test_runs_inherit_and_targets_are_complete(raw: dict[str, Any], root: Path) -> None:
    raw["runs"]["aged"] = {
        "from": "ours_gender_race",
        "align": {"age": {"old": 0.25, "young": 0.75}, "gender": "uniform"},
    }
    study = load_study(raw, root)
    assert study.runs["ours_race"].align == {"race": dict.fromkeys(PAPER_ATTRIBUTES["race"], 0.25)}
    assert study.runs["aged"].align == {"gender": {"female": 0.5, "male": 0.5}, "age": {"young": 0.75, "old": 0.25}}
    assert list(study.runs["aged"].align["age"]) == ["young", "old"]
    assert study.runs["aged"].train == ["text_encoder"]
    assert not study.finetuned("original")
    assert study.finetune_spec("original", 0) == {"method": "original"}


def test_a_run_overrides_parts_of_mappings(raw: dict[str, Any], root: Path) -> None:
    raw["runs"]["weak"] = {"from": "ours_gender", "loss": {"image": 0.25, "agree": {"race": 0.5}}}
    study = load_study(raw, root)
    before, after = study.runs["ours_gender"].loss, study.runs["weak"].loss
    assert (after.image, after.face) == (0.25, before.face)
    assert after.agree == {**before.agree, "race": 0.5}


def test_another_estimator_inherits_no_options(raw: dict[str, Any], root: Path) -> None:
    raw["runs"] |= {
        "damped": {"from": "ours_gender", "gradient": {"weights": "exact", "damping": 0.3}},
        "equal": {"from": "damped", "rank": 5, "gradient": {"weights": "adjusted"}},
        "kept": {"from": "damped", "rank": 3, "gradient": {"keep_graph": True}},
    }
    runs = load_study(raw, root).runs
    assert (runs["equal"].gradient.weights, runs["equal"].gradient.damping) == ("adjusted", None)
    assert (runs["kept"].gradient.weights, runs["kept"].gradient.damping) == ("exact", 0.3)


def test_an_option_s_default_written_out_changes_nothing(raw: dict[str, Any], root: Path) -> None:
    sparse = {"weights": "unstandardised", "steps": 3}
    raw["runs"] |= {
        "sparse": {"from": "ours_gender", "gradient": sparse},
        "even": {"from": "ours_gender", "gradient": {**sparse, "choice": "even"}},
    }
    before = load_study(raw, root)
    raw["runs"]["sparse"]["gradient"] = {**sparse, "choice": "random"}
    after = load_study(raw, root)
    assert after.finetune_spec("sparse", 0) == before.finetune_spec("sparse", 0)
    assert after.finetune_spec("even", 0)["gradient"]["choice"] == "even"


def test_seeds_of_a_run_and_its_descendants(raw: dict[str, Any], root: Path) -> None:
    raw["runs"]["ours_gender"]["seeds"] = [3, 4]
    study = load_study(inline(raw, rank=3), root)
    assert [study.seeds(run) for run in ("original", "ours_gender", last_run(study))] == [[0], [3, 4], [3, 4]]


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"rank": 3}, "ours_gender.rank-3"),
        ({"learning_rate": "5e-5", "rank": 2}, "ours_gender.rank-2_learning_rate-5e-05"),
        ({"train": ["unet", "text_encoder"]}, "ours_gender.train-unet-text_encoder"),
        ({"gradient": {"weights": "exact", "damping": 0.5}}, "ours_gender.gradient-weights-exact_gradient-damping-0.5"),
        ({"align": {"age": {"young": 0.75, "old": 0.25}}}, "ours_gender.align-age-0.75-0.25"),
        ({"align": {"age": "uniform", "gender": "uniform"}}, "ours_gender.align-gender-age"),
        ({"noise_period": None}, "ours_gender.noise_period-none"),
    ],
)
def test_runs_written_in_rows_have_readable_names(raw: dict[str, Any], root: Path, entry: dict, name: str) -> None:
    study = load_study(inline(raw, **entry), root)
    assert last_run(study) == name
    assert name in study.runs


def test_long_names_are_cut_and_stay_different(raw: dict[str, Any], root: Path) -> None:
    for factor in (0.1, 0.3):
        losses = {"image": 3, "agree": {"gender": factor, "race": 0.123, "age": 0.456}, "face_confidence": 0.77777}
        inline(raw, loss=losses, learning_rate=0.00123, weight_decay=0.0456, ema_decay=0.99, confidence=0.77)
    study = load_study(raw, root)
    names = [row.run for row in study.tables["comparison"].rows[-2:]]
    assert len(set(names)) == 2
    assert all(len(name) <= 90 for name in names)


def test_a_run_written_in_a_row_that_exists_already_is_that_run(raw: dict[str, Any], root: Path) -> None:
    rank = load_study(raw, root).runs["ours_gender"].rank
    study = load_study(inline(inline(raw, rank=rank), prefix_tokens=7), root)  # the prefix is not trained
    assert [row.run for row in study.tables["comparison"].rows[-2:]] == ["ours_gender", "ours_gender"]
    assert set(study.runs) == set(raw["runs"])


def test_adding_a_row_changes_no_other_specification(raw: dict[str, Any], root: Path) -> None:
    before = load_study(raw, root)
    after = load_study(inline(raw, rank=3), root)
    assert set(after.runs) - set(before.runs) == {"ours_gender.rank-3"}
    for run in before.runs:
        assert after.finetune_spec(run, 0) == before.finetune_spec(run, 0)
        assert after.image_spec(run, 0, "occupations") == before.image_spec(run, 0, "occupations")


def test_a_row_with_seeds_of_its_own(raw: dict[str, Any], root: Path) -> None:
    raw["tables"]["comparison"]["rows"] = [
        {"run": "ours_gender", "seeds": [0, 1]},
        {"run": {"from": "ours_gender", "seeds": [2]}},
        {"run": "ours_gender"},
    ]
    study = load_study(raw, root)
    assert [row["seeds"] for row in study.table_spec("comparison")["rows"]] == [[0, 1], [2], [0]]
    assert (study.seeds("ours_gender"), study.all_seeds("ours_gender")) == ([0], [0, 1, 2])


def test_prompt_sets_are_part_of_what_a_run_is(raw: dict[str, Any], root: Path) -> None:
    before = load_study(raw, root)
    raw["runs"]["ours_gender"]["prompt_sets"] = ["occupations"]
    assert load_study(raw, root).finetune_spec("ours_gender", 0) == before.finetune_spec("ours_gender", 0)
    raw["runs"]["ours_gender"]["prompt_sets"] = ["occupations", "sports"]
    raw["evaluations"]["sports"] = {"prompt_set": "sports"}
    study = load_study(raw, root)
    assert len(study.plan_spec("ours_gender", 0)["train_prompts"]) == 2
    assert study.prompt_files("ours_gender") == [
        f"resources/prompts/mini_{name}.json" for name in ("occupations", "sports")
    ]
    assert study.prompt_file("sports") == "resources/prompts/mini_sports.json"
    images = [study.image_spec("original", 0, name)["prompts"] for name in ("occupations", "sports")]
    assert images[0] != images[1]


def test_the_original_is_one_for_all_and_seeds_differ(raw: dict[str, Any], root: Path) -> None:
    study = load_study(raw, root)
    assert study.image_spec("original", 0, "occupations")["adapter"] == {"method": "original"}
    assert study.image_spec("original", 0, "occupations") != study.image_spec("original", 1, "occupations")
    assert study.plan_id("ours_gender", 0) != study.plan_id("ours_gender", 1)


def test_runs_share_a_plan_unless_its_settings_differ(raw: dict[str, Any], root: Path) -> None:
    study = load_study(inline(inline(raw, rank=3), guidance=4), root)
    first, second = (row.run for row in study.tables["comparison"].rows[-2:])
    assert study.plan_id("ours_gender", 0) == study.plan_id("ours_race", 0) == study.plan_id(first, 0)
    assert study.plan_id("ours_gender", 0) != study.plan_id(second, 0)


def test_longer_training_on_returning_noise_keeps_its_plan(raw: dict[str, Any], root: Path) -> None:
    period = load_study(raw, root).runs["ours_gender"].noise_period
    assert period is not None
    study = load_study(inline(raw, iterations=10 * period), root)
    assert study.plan_spec(last_run(study), 0)["iterations"] == period
    assert study.plan_id(last_run(study), 0) == study.plan_id("ours_gender", 0)


def test_order_of_keys_and_comments_change_no_specification(raw: dict[str, Any], root: Path) -> None:
    text = yaml.safe_dump(dict(reversed(raw.items())), sort_keys=False)
    first, second = load_study(raw, root), load_study(yaml.safe_load(f"# a comment\n{text}"), root)
    for run in first.runs:
        assert fingerprint(first.finetune_spec(run, 0)) == fingerprint(second.finetune_spec(run, 0))


def test_what_a_job_needs_changes_no_specification(raw: dict[str, Any], own_root: Path) -> None:
    before = load_study(raw, own_root)
    edit_yaml(own_root / "presets/mini.yaml", job={"threads": 3, "needs": {"finetune": {"mem_mb": 1, "runtime": 1}}})
    after = load_study(raw, own_root)
    assert after.preset.job.needs == {"finetune": {"mem_mb": 1, "runtime": 1}} != before.preset.job.needs
    for specification in (
        lambda study: study.plan_spec("ours_gender", 0),
        lambda study: study.finetune_spec("ours_gender", 0),
        lambda study: study.image_spec("ours_gender", 0, "occupations"),
        lambda study: study.classify_spec("occupations"),
    ):
        assert specification(after) == specification(before)


def test_only_a_split_that_is_used_matters(raw: dict[str, Any], own_root: Path) -> None:
    before = load_study(raw, own_root)
    path = own_root / "resources/prompts/mini_occupations.json"
    path.write_text(path.read_text().replace("judge", "senator"))
    after = load_study(raw, own_root)
    assert after.finetune_spec("ours_gender", 0) == before.finetune_spec("ours_gender", 0)
    assert after.image_spec("ours_gender", 0, "occupations") != before.image_spec("ours_gender", 0, "occupations")


def test_a_new_optional_key_keeps_every_fingerprint_and_a_changed_default_does_not(
    raw: dict[str, Any], root: Path
) -> None:
    class Later(RunSettings):
        novelty: int | None = None

    class Changed(RunSettings):
        novelty: int = 1

    for settings in load_study(raw, root).runs.values():
        if settings.method != "original":
            now = fingerprint(run_meaning(settings))
            assert fingerprint(run_meaning(Later(**settings.model_dump()))) == now
            assert fingerprint(run_meaning(Changed(**settings.model_dump()))) != now


def test_what_does_not_matter_to_a_run_is_not_in_its_meaning(raw: dict[str, Any], root: Path) -> None:
    prefix = {"from": "ours_gender", "train": ["prompt_prefix"], "prefix_tokens": 5}
    raw["runs"] |= {"prefix": prefix, "exact": {"from": "ours_gender", "gradient": {"weights": "exact"}}}
    study = load_study(raw, root)
    assert "rank" not in study.finetune_spec("prefix", 0)
    assert "prefix_tokens" not in study.finetune_spec("ours_gender", 0)
    assert study.finetune_spec("exact", 0)["gradient"]["damping"] == 1
    assert study.finetune_spec("ours_gender", 0)["loss"]["agree"].keys() == {"gender"}


def test_tables_and_figures_are_complete(raw: dict[str, Any], root: Path) -> None:
    study = load_study(raw, root)
    row = study.table_spec("comparison")["rows"][1]
    assert (row["run"], row["classifier"], row["seeds"]) == ("ours_gender", "evaluation", [0])
    assert row["paper"]["bias/gender"] == {"mean": 0.23, "std": 0.16}
    readers = [row["classifier"] for row in study.table_spec("headline_readers")["rows"]]
    assert readers == ["evaluation"] * 3 + ["loss"] * 3 + ["reader"] * 3
    assert study.figure_spec("frequencies")["attributes"] == ["gender", "race"]
    assert list(study.bias_spec("ours_gender")["read"]) == ["loss", "evaluation", "reader"]


def test_real_pictures_are_shared_by_what_they_fit(raw: dict[str, Any], root: Path) -> None:
    raw["evaluations"] |= {"guided": {"prompts": "test", "guidance": 9}, "trained": {"prompts": "train"}}
    study = load_study(raw, root)
    assert study.reference_spec("occupations")["source"] == "rendered"
    assert study.reference_id("guided") == study.reference_id("occupations") != study.reference_id("trained")
    assert load_study({**raw, "preset": "sd15"}, root).reference_spec("occupations") == {}


def test_real_pictures_change_nothing_else(raw: dict[str, Any], own_root: Path) -> None:
    before = load_study(raw, own_root)
    path = own_root / "presets/mini.yaml"
    preset = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({key: value for key, value in preset.items() if key != "quality"}))
    after = load_study(raw, own_root)
    assert after.preset.quality is None
    for run in before.runs:
        assert after.finetune_spec(run, 0) == before.finetune_spec(run, 0)
        assert after.image_spec(run, 0, "occupations") == before.image_spec(run, 0, "occupations")
    assert after.classify_spec("occupations") == before.classify_spec("occupations")


@pytest.mark.parametrize("preset", ["mini", "smoke", "sd15"])
def test_every_preset_completes_the_paper(root: Path, preset: str) -> None:
    study = load_study({**read_yaml(root / "config.yaml"), "preset": preset}, root)
    assert study.preset.name == preset
    assert list(study.runs)[:4] == ["original", "ours_gender", "ours_race", "ours_gender_race"]
    assert all(attributes[0] == "gender" for attributes in study.read().values())
    for dataset in study.preset.faces:
        assert study.faces_spec(dataset)["source"] in {"rendered", "celeba", "fairface"}


def test_all_seven_groups_of_race_on_request(raw: dict[str, Any], own_root: Path) -> None:
    before = load_study({**raw, "preset": "sd15"}, own_root)
    labels = {name: {"labels": {"race7": "fairface"}} for name in ("loss", "evaluation")}
    preset = {"from": "sd15", "description": "seven", "classifiers": labels, "reader": {"faces": "fairface"}}
    (own_root / "presets/seven.yaml").write_text(yaml.safe_dump(preset))
    raw["runs"]["seven"] = {"from": "ours_gender", "align": {"gender": "uniform", "race7": "uniform"}}
    raw["tables"]["comparison"]["columns"] += [
        "bias/gender+race7",
        "frequency/race7=latino_hispanic",
        "bias/race7@reader",
    ]
    study = load_study({**raw, "preset": "seven"}, own_root)
    assert study.runs["seven"].align["race7"] == dict.fromkeys(ATTRIBUTES["race7"], 1 / 7)
    assert study.finetune_spec("seven", 0)["loss"]["agree"] == {"gender": 0.2, "race7": 0.6}
    assert study.read()["evaluation"] == study.read()["reader"] == ["gender", "race", "age", "race7"]
    assert study.bank_spec()["finer"] == study.reader_spec()["finer"] == ["race7"]
    # who does not ask for it has what was there before
    assert before.read()["evaluation"] == before.read()["reader"] == ["gender", "race", "age"]
    assert "finer" not in before.bank_spec() and "finer" not in before.reader_spec()


def test_sd15_has_the_papers_values(raw: dict[str, Any], root: Path) -> None:
    raw["runs"]["ours_age"] = {"from": "ours_gender", "align": dict.fromkeys(PAPER_ATTRIBUTES, "uniform")}
    runs = load_study({**raw, "preset": "sd15"}, root).runs
    names = ["ours_gender", "ours_race", "ours_gender_race", "ours_age"]
    assert [runs[name].images_per_step for name in names] == [24, 32, 32, 40]
    assert [runs[name].iterations for name in names] == [10000, 12000, 15000, 15000]
    assert [runs[name].loss.image for name in names] == [8, 6, 8, 8]
    assert [runs[name].loss.face for name in names] == [1, 0.1, 0.1, 0.1]
    assert [runs[name].loss.face_confidence for name in names] == [0.9, 0.9, 0.8, 0.75]
    assert runs["ours_gender"].loss.agree.items() >= {"gender": 0.2, "race": 0.6, "age": 0.6}.items()
    assert runs["ours_gender"].classifier == "loss_celeba"
    assert all(runs[name].confidence == 0.8 and runs[name].rank == 50 for name in names)


def test_what_the_preset_says_of_runs_that_train_the_same_parts(raw: dict[str, Any], own_root: Path) -> None:
    path = own_root / "presets/mini.yaml"
    preset = yaml.safe_load(path.read_text())
    preset["by_trained"] = {"text_encoder+unet": {"rank": 3, "guidance": 2}}
    preset["by_attributes"] = {"gender": {"rank": 5, "ema_decay": 0.25}}
    path.write_text(yaml.safe_dump(preset))
    raw["runs"]["both"] = {"from": "ours_gender", "train": ["unet", "text_encoder"]}
    runs = load_study(raw, own_root).runs
    assert (runs["both"].rank, runs["both"].guidance, runs["both"].ema_decay) == (3, 2, 0.25)
    assert (runs["ours_gender"].rank, runs["ours_gender"].ema_decay) == (5, 0.25)


def test_what_the_preset_says_of_a_run_of_a_name(raw: dict[str, Any], own_root: Path) -> None:
    path = own_root / "presets/mini.yaml"
    preset = yaml.safe_load(path.read_text())
    preset["by_run"] = {
        "ours_gender": {"rank": 3, "iterations": 7, "ema_decay": 0.25},
        "narrow": {"rank": 2, "iterations": 6},
        "elsewhere": {"rank": 1},
    }
    path.write_text(yaml.safe_dump(preset))
    raw["runs"]["ours_gender"]["ema_decay"] = 0.5
    raw["runs"]["narrow"] = {"from": "ours_gender", "iterations": 5}
    raw["runs"]["narrower"] = {"from": "narrow", "rank": 4}
    runs = load_study(raw, own_root).runs
    settings = {name: (runs[name].rank, runs[name].iterations, runs[name].ema_decay) for name in runs}
    assert settings["ours_gender"] == (3, 7, 0.5)
    assert settings["narrow"] == (2, 5, 0.5)
    assert settings["narrower"] == (4, 5, 0.5)


def test_a_shorter_run_is_one_of_fewer_iterations(raw: dict[str, Any], root: Path) -> None:
    raw["runs"]["half"] = {"from": "ours_gender", "duration": 0.5}
    study = load_study(raw, root)
    assert study.runs["half"].iterations == study.runs["ours_gender"].iterations // 2
    assert "duration" not in study.finetune_spec("half", 0)
