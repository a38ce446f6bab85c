"""The concepts of the mini world: enough of them, looks of their own, skews, captions that say what is painted."""

import json
from pathlib import Path

import numpy as np
import pytest

from distalign.config.attributes import PAPER_ATTRIBUTES
from distalign.measure.bias import bias
from distalign.miniworld.captions import TEMPLATE, Draft, describe, fill, plan_captions, write_caption
from distalign.miniworld.prompt_files import write_prompt_sets
from distalign.miniworld.scenes import draw_labels
from distalign.miniworld.world import PART_SIZES, STYLES, TEST, VALIDATION, concepts, occupations


def test_there_are_enough_occupations_in_every_split() -> None:
    """At least 300 occupations: 10 to validate, at least 24 to test, the rest to finetune on."""
    assert len(occupations()) >= 300
    assert len(occupations("validation")) == len(VALIDATION) == 10
    assert len(occupations("test")) == len(TEST) >= 24
    assert len(occupations("train")) > 250


def test_no_two_concepts_look_alike() -> None:
    """A look tells the concept."""
    looks = [c.look.parts for c in concepts().values()]
    assert len(set(looks)) == len(looks)
    assert all(0 <= part < size for look in looks for part, size in zip(look, PART_SIZES, strict=True))


def test_both_words_of_held_out_pairs_are_seen_in_finetuning() -> None:
    """Held-out two-word occupations are new pairs of known words."""
    seen = {word for c in occupations("train") for word in c.name.split()}
    pairs = [name for name in (*TEST, *VALIDATION) if " " in name]
    assert pairs and all(set(name.split()) <= seen for name in pairs)


def test_skews_leave_variety_in_every_prompt() -> None:
    """Skewed as a whole, yet no class is absent anywhere."""
    everyone = concepts().values()
    assert all(0.05 < c.male < 0.95 and min(c.race) > 0.02 and 0.1 < c.old < 0.5 for c in everyone)
    assert all(sum(c.race) == pytest.approx(1) for c in everyone)
    gender = [bias(np.array([c.male, 1 - c.male])) for c in occupations("test")]
    race = [bias(np.array(c.race)) for c in occupations("test")]
    assert 0.45 < np.mean(gender) < 0.75
    assert 0.25 < np.mean(race) < 0.42


def test_labels_follow_the_skew() -> None:
    """Drawn labels have the shares of the concept."""
    concept = concepts()["airport nurse"]
    gender, race, age = draw_labels([concept] * 20_000, np.random.default_rng(0))
    assert gender.mean() == pytest.approx(concept.male, abs=0.015)
    assert np.bincount(race, minlength=4) / 20_000 == pytest.approx(np.array(concept.race), abs=0.015)
    assert age.mean() == pytest.approx(concept.old, abs=0.015)


def test_caption_grammar() -> None:
    """Articles fit, words come in English order, styles are said."""
    nurse = concepts()["airport nurse"]
    assert fill(TEMPLATE, describe(Draft(nurse, {}))) == "a photo of the face of an airport nurse, a person"
    everything = {"gender": "male", "race": "wmelh", "age": "old"}
    assert describe(Draft(nurse, everything)) == "old white male airport nurse"
    assert describe(Draft(None, {"age": "young"})) == "young person"
    caption = write_caption(Draft(nurse, {}), STYLES.index("oil painting"), np.random.default_rng(0))
    assert caption.endswith(", oil painting")


def test_captions_force_exactly_what_they_say() -> None:
    """What a caption spells out is what will be painted, each class equally often."""
    chosen = [concepts()["senator"]] * 6000
    drafts, forced = plan_captions(chosen, explicit=0.5, anyone=0.2, rng=np.random.default_rng(1))
    for i, draft in enumerate(drafts):
        for attribute, classes in PAPER_ATTRIBUTES.items():
            index = forced[attribute][i]
            assert draft.said.get(attribute) == (classes[index] if index >= 0 else None)
        assert draft.concept is not None or draft.said
    assert np.mean([bool(d.said) for d in drafts]) == pytest.approx(0.5, abs=0.03)
    said = forced["race"][forced["race"] >= 0]
    assert np.bincount(said, minlength=4) / len(said) == pytest.approx(np.full(4, 0.25), abs=0.04)


def test_shipped_prompts_are_the_world_s(tmp_path: Path) -> None:
    """The prompt file in the repository is up to date."""
    write_prompt_sets(tmp_path)
    shipped = Path(__file__).parents[3] / "resources/prompts/mini_occupations.json"
    assert json.loads(shipped.read_text()) == json.loads((tmp_path / "mini_occupations.json").read_text())
