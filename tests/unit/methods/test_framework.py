"""What all methods share: stages of sampling, assignment of classes, search of settings, the files of a fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distalign.alignment.reading import WorldPaths
from distalign.diffusion.intervention import Batch, Intervention, Step, render
from distalign.diffusion.sampler import generate
from distalign.methods import fitting
from distalign.methods.assignment import assign, cell_shares, cells, quota
from distalign.methods.fitting import best, load_method, save_method
from distalign.methods.world import Measured, World
from distalign.prompts.phrases import of_anyone, say, with_article
from distalign.prompts.prompt_set import Prompt
from distalign.store.parquet import TRAIN_LOG, read_table

from .conftest import GUIDANCE, STEPS, UNIFORM, Images, settings_of

GENDER, BOTH = {"gender": UNIFORM["gender"]}, {"gender": UNIFORM["gender"], "race": UNIFORM["race"]}


def test_doing_nothing_gives_the_original(world: World, batch: Batch) -> None:
    images = render(world.pipeline, Intervention(), batch, list(range(8)), STEPS, GUIDANCE, "longest")
    texts = [prompt.text for prompt in batch.prompts]
    assert torch.equal(images, generate(world.pipeline, texts, list(range(8)), STEPS, GUIDANCE, 8, "longest"))


def test_at_guidance_1_the_empty_prompt_has_no_part(world: World, batch: Batch) -> None:
    calls: list[int] = []
    world.pipeline.unet.register_forward_pre_hook(lambda module, arguments: calls.append(len(arguments[0])))
    images = render(world.pipeline, Intervention(), batch, list(range(8)), STEPS, 1.0, "longest")
    assert calls == [8] * STEPS
    texts = [prompt.text for prompt in batch.prompts]
    assert torch.equal(images, generate(world.pipeline, texts, list(range(8)), STEPS, 1.0, 8, "longest"))


class Towards(Intervention):
    """Half of the way to a branch, at every step."""

    branches = ("a much longer prompt",)

    def score(self, step: Step) -> Tensor:
        empty, own, other = step.evaluate(torch.stack([step.empty_rows, step.prompt_rows, step.branch_rows(0)]))
        return empty + step.sampling.guidance * ((own + other) / 2 - empty)


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_branches_do_not_depend_on_the_batch(
    world: World, both_ways: Callable[[World, Intervention], Images], padding: Any
) -> None:
    world.padding = padding
    images = both_ways(world, Towards())
    torch.testing.assert_close(images.together, images.alone, atol=2e-5, rtol=0)
    assert (images.together - both_ways(world, Intervention()).together).abs().max() > 1e-3


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.9, 0.1], [0.25] * 4, [1.0, 0.0], [1 / 3, 2 / 3]])
@pytest.mark.parametrize("count", [1, 7, 64])
def test_quotas_are_exact(shares: list[float], count: int) -> None:
    numbers = np.bincount(quota(np.array(shares), count, seed=3), minlength=len(shares))
    assert numbers.sum() == count
    assert (np.abs(numbers - np.array(shares) * count) < 1).all()
    assert (quota(np.array(shares), count, 3) == quota(np.array(shares), count, 3)).all()


def test_a_remainder_goes_to_every_class_now_and_then() -> None:
    extra = [np.bincount(quota(np.full(4, 0.25), 5, seed), minlength=4).argmax() for seed in range(40)]
    assert set(extra) == {0, 1, 2, 3}


@pytest.mark.parametrize("how", ["quota", "iid"])
def test_assignment_depends_on_the_image_alone(batch: Batch, how: str) -> None:
    together = assign(BOTH, batch, how)
    alone = [
        assign(BOTH, Batch(batch.prompts[i : i + 1], batch.index[i : i + 1], 4, batch.seed), how)[0] for i in range(8)
    ]
    assert together == alone
    other = assign(BOTH, Batch(batch.prompts, batch.index, 4, seed=6), how)
    assert other != together


def test_each_prompt_has_its_quota(batch: Batch) -> None:
    chosen = np.array(assign(GENDER, batch, "quota"))
    assert np.bincount(chosen[:4]).tolist() == [2, 2]
    assert np.bincount(chosen[4:]).tolist() == [2, 2]


def test_independent_draws_follow_the_target(batch: Batch) -> None:
    target = {"gender": {"female": 0.9, "male": 0.1}}
    many = Batch([batch.prompts[0]] * 2000, range(2000), 2000, 1)
    assert np.mean(assign(target, many, "iid")) == pytest.approx(0.1, abs=0.02)


def test_cells_of_several_attributes() -> None:
    target = {"race": UNIFORM["race"], "gender": {"female": 0.75, "male": 0.25}}
    assert cells(target)[1] == {"gender": "female", "race": "asian"}
    np.testing.assert_allclose(cell_shares(target), [0.1875] * 4 + [0.0625] * 4)


@pytest.mark.parametrize(
    ("text", "concept", "expected"),
    [
        (
            "a photo of the face of a doctor, a person",
            "doctor",
            "a photo of the face of an asian female doctor, a person",
        ),
        ("An artist reading. Oil painting", "artist", "An asian female artist reading. Oil painting"),
        ("the bar tender at work", "bar tender", "the asian female bar tender at work"),
        ("someone who cooks", "cook", "someone who cooks, an asian female person"),
        ("somebody at the stove", "cook", "somebody at the stove, an asian female person"),
    ],
)
def test_classes_are_said_before_the_concept(text: str, concept: str, expected: str) -> None:
    said = say(Prompt("x", text, concept, "test"), {"gender": "female", "race": "asian"})
    assert said.text == expected
    assert said.id == "x"


@pytest.mark.parametrize(
    ("article", "nouns"),
    [
        (
            "a",
            [
                "university professor",
                "urologist",
                "user interface designer",
                "union leader",
                "European",
                "one-man band",
            ],
        ),
        ("a", ["doctor", "hotel clerk", "honey farmer", "BMX athlete"]),
        ("an", ["honest person", "hourly worker", "heir", "honorary consul"]),
        ("an", ["usher", "upholsterer", "urban planner", "uninsured person", "oncologist", "English teacher"]),
    ],
)
def test_articles_go_by_the_sound(article: str, nouns: list[str]) -> None:
    assert [with_article(noun) for noun in nouns] == [f"{article} {noun}" for noun in nouns]


def test_anyone_instead_of_the_concept() -> None:
    doctor = Prompt("x", "a photo of a doctor, a person", "doctor", "test")
    assert of_anyone(doctor, {}).text == "a photo of a person, a person"
    assert of_anyone(doctor, {"race": "indian"}).text == "a photo of an indian person, a person"


def test_scores_of_a_measurement() -> None:
    measured = Measured(np.array([[3.0, 1.0], [0.0, 0.0], [2.0, 2.0]]), images=4, clip_t=0.5)
    scores = measured.scores(GENDER)
    assert scores == {"face_found": 8 / 12, "clip_t": 0.5, "target_distance": 0.125, "bias": 0.25}


def test_the_search_takes_the_nearest_that_keeps_the_prompt() -> None:
    scores = [
        {"target_distance": 0.4, "clip_t": 0.80},
        {"target_distance": 0.2, "clip_t": 0.78},
        {"target_distance": 0.2, "clip_t": 0.79},
        {"target_distance": 0.0, "clip_t": 0.70},
    ]
    assert best(scores) == 1
    assert best([{}]) == 0


def test_a_saved_method_samples_as_before(
    world: World, tmp_path: Path, both_ways: Callable[[World, Intervention], Images]
) -> None:
    settings = settings_of("explicit_prompt", assignment="iid")
    spec = {"method": "explicit_prompt", "align": BOTH}
    save_method(tmp_path / "adapter", spec, settings, {"unused": torch.ones(2)})
    images = both_ways(world, load_method(tmp_path / "adapter", world))
    torch.testing.assert_close(images.together, images.alone, atol=2e-5, rtol=0)


def test_an_oracle_says_each_class_as_often_as_the_target_asks(batch: Batch) -> None:
    from distalign.methods.explicit_prompt import ExplicitPrompt

    texts = ExplicitPrompt(BOTH, "quota").prompts(Batch([batch.prompts[0]] * 8, range(8), 8, 0))
    assert sorted(texts) == sorted({say(batch.prompts[0], cell).text for cell in cells(BOTH)})


def test_a_search_measures_every_value_and_fits_no_more_than_it_must(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[float] = []

    def fit_once(method: str, world: World, settings: Any, target: Any) -> dict[str, Tensor]:
        fits.append(settings["scale"])
        return {"a": torch.ones(1)}

    def distance(self: World, intervention: Any, prompts: Any, target: Any) -> Measured:
        off = abs(intervention - 2)  # the best scale is 2
        return Measured(np.array([[2.0 + off / 2, 2.0 - off / 2]]), images=4, clip_t=0.7)

    monkeypatch.setattr(fitting, "make_world", lambda *arguments: world)
    monkeypatch.setattr(fitting, "fit", fit_once)
    monkeypatch.setattr(fitting, "apply", lambda method, world, settings, target, fitted: settings["scale"])
    monkeypatch.setattr(World, "measure", distance)
    (tmp_path / "prompts.json").touch()
    paths = WorldPaths(
        prompts=(tmp_path / "prompts.json",),
        **dict.fromkeys(("backbone", "classifier", "clip", "dino", "face_embedding"), tmp_path / "prompts.json"),
    )
    spec = {
        "method": "interpret_diffusion",
        "align": GENDER,
        "seed": 0,
        "settings": {k: v for k, v in settings_of("interpret_diffusion").items() if k != "scale"},
        "search": {"scale": [0.5, 1, 2, 4]},
    }
    fitting.fit_method(spec, paths, tmp_path / "run", torch.device("cpu"))
    assert fits == [0.5]
    saved = json.loads((tmp_path / "run" / "adapter" / "method.json").read_text())
    assert saved["settings"]["scale"] == 2
    log = read_table(tmp_path / "run" / "train_log.parquet", TRAIN_LOG).to_pylist()
    distances = [row["value"] for row in log if row["metric"] == "target_distance"]
    assert distances == pytest.approx([0.1875, 0.125, 0.0, 0.25])
    assert [row["phase"] for row in log if row["metric"] == "seconds"] == ["train"]
