"""From concepts and labels to portraits: drawing the people and scenes that a caption or a data set asks for."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distalign.miniworld.people import FEMALE, MALE, Ints, People, Scene, draw_nuisance, draw_people
from distalign.miniworld.world import BACKGROUNDS, CLOTH_COLOURS, PATTERNS, Concept, Look

_CLOTH = np.array(list(CLOTH_COLOURS.values()))
_BACKGROUND = np.array([[upper, lower] for _, upper, lower in BACKGROUNDS.values()])
_PATTERN = np.array([PATTERNS.index(pattern) for pattern, _, _ in BACKGROUNDS.values()])


def draw_scene(looks: Sequence[Look], people: People, styles: Ints, rng: np.random.Generator) -> Scene:
    """A scene for each person, dressed and placed as its look says; colours vary a little from picture to picture."""
    n = len(people)
    parts = np.array([look.parts for look in looks])
    return Scene(
        clothes=parts[:, 1],
        clothes_colour=(_CLOTH[parts[:, 2]] * rng.uniform(0.92, 1.05, (n, 1))).clip(0, 1),
        headwear=parts[:, 3],
        background=(_BACKGROUND[parts[:, 0]] * rng.uniform(0.94, 1.05, (n, 1, 1))).clip(0, 1),
        pattern=_PATTERN[parts[:, 0]],
        style=styles,
        **draw_nuisance(people, rng),  # type: ignore[arg-type]
    )


def draw_labels(concepts: Sequence[Concept], rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Perceived gender, group and age drawn from each concept's own skew."""
    n = len(concepts)
    gender = np.where(rng.random(n) < [c.male for c in concepts], MALE, FEMALE)
    edges = np.cumsum([c.race for c in concepts], axis=1)[:, :-1]
    race = (rng.random((n, 1)) > edges).sum(axis=1)
    age = (rng.random(n) < [c.old for c in concepts]).astype(np.int64)
    return gender, race, age


def balanced_labels(n: int, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Labels drawn uniformly and independently of everything else."""
    return rng.integers(2, size=n), rng.integers(4, size=n), rng.integers(2, size=n)


def random_looks(n: int, rng: np.random.Generator) -> list[Look]:
    """Looks with independent parts: what a classifier sees when it must not learn the occupation."""
    sizes = (len(BACKGROUNDS), 6, len(CLOTH_COLOURS))
    headwear: NDArray[np.int64] = rng.choice(5, size=n, p=[0.6, 0.1, 0.1, 0.1, 0.1])
    columns = [rng.integers(size, size=n) for size in sizes]
    return [Look(int(a), int(b), int(c), int(d)) for a, b, c, d in zip(*columns, headwear, strict=True)]


def draw_identities(n: int, rng: np.random.Generator) -> People:
    """People with balanced labels, for face data sets."""
    return draw_people(*balanced_labels(n, rng), rng)
