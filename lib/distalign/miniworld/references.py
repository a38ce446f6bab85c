"""Held-out portraits of the mini world: what generated images of the same prompts are compared with."""

from collections.abc import Iterator, Sequence

import numpy as np

from distalign.config.attributes import PAPER_ATTRIBUTES
from distalign.errors import UserError
from distalign.measure.realism import FLOOR_PART, REFERENCE_PART
from distalign.measure.reference import Picture
from distalign.miniworld.captions import read_style
from distalign.miniworld.people import Ints, draw_people
from distalign.miniworld.renderer import render
from distalign.miniworld.scenes import draw_scene
from distalign.miniworld.world import Look, concepts
from distalign.prompts import Prompt
from distalign.store.seeds import stable_seed


def rendered_portraits(prompts: Sequence[Prompt], count: int, seed: int) -> Iterator[Picture]:
    """Paint `count` portraits of each prompt as the reference, then others of other people for the floor.

    They have the prompt's look and style. Every combination of perceived classes is painted equally often, or once
    more than another, so that whatever mix of people a generator shows, there are real pictures of the same.

    Raises:
        UserError: a prompt names no concept of the mini world.
    """
    looks = {prompt.id: _look(prompt) for prompt in prompts}
    for part in (REFERENCE_PART, FLOOR_PART):
        for prompt in prompts:
            rng = np.random.default_rng(stable_seed("reference", seed, part, prompt.id))
            people = draw_people(*balanced_classes(count, rng), rng)
            styles = np.full(count, read_style(prompt.text), np.int64)
            scene = draw_scene([looks[prompt.id]] * count, people, styles, rng)
            for index, image in enumerate(render(people, scene)):
                yield Picture(part, prompt.id, image, {name: people.labels(name)[index] for name in PAPER_ATTRIBUTES})


def balanced_classes(count: int, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Class indices (count,) of gender, race, age: every combination equally often, those left over at random."""
    sizes = tuple(map(len, PAPER_ATTRIBUTES.values()))
    cells = rng.permutation(np.prod(sizes))
    gender, race, age = np.unravel_index(cells[np.arange(count) % len(cells)], sizes)
    return gender, race, age


def _look(prompt: Prompt) -> Look:
    if prompt.concept not in concepts():
        raise UserError(
            f"quality.source: rendered knows no look of {prompt.concept!r}; use `source: directory`, with photographs."
        )
    return concepts()[prompt.concept].look
