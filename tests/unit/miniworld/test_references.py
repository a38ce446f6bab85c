"""Held-out portraits: the prompts' looks, all kinds of people equally often, other people in each part."""

import numpy as np
import pytest
import torch

from distalign.errors import UserError
from distalign.measure.realism import FLOOR_PART, REFERENCE_PART
from distalign.miniworld.captions import read_style
from distalign.miniworld.references import balanced_classes, rendered_portraits
from distalign.miniworld.world import STYLES
from distalign.prompts import Prompt

PROMPTS = [
    Prompt("senator", "a photo of the face of a senator, a person", "senator", "test"),
    Prompt("harbor-cook", "a photo of the face of a harbor cook, a person", "harbor cook", "test"),
]


def test_every_combination_equally_often() -> None:
    gender, race, age = balanced_classes(48, np.random.default_rng(0))
    cells = np.bincount(8 * gender + 2 * race + age, minlength=16)
    assert cells.tolist() == [3] * 16
    few = [tuple(map(int, np.transpose(balanced_classes(2, np.random.default_rng(seed)))[0])) for seed in range(30)]
    assert len(set(few)) > 8  # those left over are drawn


def test_parts_and_prompts_show_different_people() -> None:
    pictures = list(rendered_portraits(PROMPTS, 3, seed=15))
    keys = [(picture.part, picture.prompt_id) for picture in pictures]
    assert keys[::3] == [(part, prompt.id) for part in (REFERENCE_PART, FLOOR_PART) for prompt in PROMPTS]
    assert len({picture.image.numpy().tobytes() for picture in pictures}) == 12
    assert all(picture.image.dtype == torch.uint8 and picture.image.shape == (3, 64, 64) for picture in pictures)
    again = list(rendered_portraits(PROMPTS[1:], 3, seed=15))
    assert torch.equal(again[0].image, pictures[3].image)  # whatever other prompts there are
    assert set(pictures[0].classes) == {"gender", "race", "age"}
    other = next(rendered_portraits(PROMPTS, 3, seed=16))
    assert not torch.equal(other.image, pictures[0].image)


def test_styles_are_painted_as_said() -> None:
    assert read_style(PROMPTS[0].text) == 0
    assert [read_style(f"A portrait of a cook, {style.capitalize()}") for style in STYLES[1:]] == [1, 2, 3, 4, 5]
    grey = Prompt("cook", "a photo of a harbor cook, black and white", "harbor cook", "test")
    image = next(rendered_portraits([grey], 1, seed=15)).image.float()
    assert (image.amax(0) - image.amin(0)).mean() < 12


def test_concept_without_a_look_is_named() -> None:
    with pytest.raises(UserError, match="no look of 'astronaut'"):
        next(rendered_portraits([Prompt("astronaut", "an astronaut", "astronaut", "test")], 1, seed=0))
