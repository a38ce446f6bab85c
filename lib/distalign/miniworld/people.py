"""Who is in a portrait: the visible features of rendered people, and the scene they stand in.

A person is a row of numbers. Features that make an identity (shape of the face, skin, hair, eyes) are drawn by
`draw_people`; what changes between two pictures of the same person (pose, light, expression, the occupation's
clothes and background) is drawn by `draw_scene`. All arrays have one entry, or one row, per person.

Every feature varies within every group and the ranges of the groups overlap; no single feature decides a label.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from distalign.config.attributes import PAPER_ATTRIBUTES

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEMALE, MALE = range(2)
WMELH, ASIAN, BLACK, INDIAN = range(4)
YOUNG, OLD = range(2)

# Skin colour runs along a line per group, from its lighter to its darker end (RGB in 0..1).
_SKIN = np.array(
    [
        [(0.97, 0.84, 0.76), (0.84, 0.66, 0.52)],
        [(0.97, 0.86, 0.70), (0.86, 0.71, 0.50)],
        [(0.52, 0.35, 0.25), (0.31, 0.20, 0.145)],
        [(0.74, 0.53, 0.35), (0.56, 0.37, 0.22)],
    ]
)
_HAIR = (
    np.array([(0.86, 0.68, 0.36), (0.52, 0.33, 0.18), (0.30, 0.18, 0.11), (0.62, 0.31, 0.14), (0.13, 0.10, 0.09)]),
    np.array([(0.07, 0.06, 0.07), (0.14, 0.09, 0.08), (0.20, 0.13, 0.10)]),
    np.array([(0.06, 0.05, 0.05), (0.11, 0.08, 0.07), (0.17, 0.11, 0.08)]),
    np.array([(0.07, 0.05, 0.05), (0.13, 0.09, 0.07), (0.19, 0.12, 0.08)]),
)
_LIGHT_EYES = np.array([(0.25, 0.42, 0.60), (0.30, 0.42, 0.25), (0.33, 0.21, 0.11)])
_DARK_EYES = np.array([(0.16, 0.09, 0.06), (0.22, 0.13, 0.08), (0.12, 0.07, 0.05)])


@dataclass(frozen=True)
class People:
    """Features of `n` people; lengths are in units of half the picture's width at scale 1."""

    gender: Ints  # index into PAPER_ATTRIBUTES["gender"]
    race: Ints
    age: Ints
    skin: Floats  # (n, 3) RGB
    hair: Floats  # (n, 3) RGB
    iris: Floats  # (n, 3) RGB
    hair_length: Floats  # 0 short .. 1 below the shoulders
    hairline: Floats  # height of the hairline, 0 ordinary .. 1 bald crown
    curl: Floats  # 0 straight .. 1 coily
    parting: Floats  # phase of the parting and of the strands, radians
    face_width: Floats
    face_height: Floats
    jaw: Floats  # 0 tapered .. 1 square
    neck: Floats
    beard: Floats  # opacity
    moustache: Floats
    brow: Floats  # thickness
    brow_height: Floats  # distance above the eyes
    eye_distance: Floats
    eye_width: Floats
    eye_height: Floats
    eye_tilt: Floats
    lashes: Floats
    nose_width: Floats
    nose_length: Floats
    mouth_width: Floats
    lips: Floats  # thickness
    lip_tint: Floats  # 0 as the skin .. 1 red
    wrinkles: Floats
    freckles: Floats

    def __len__(self) -> int:
        return len(self.gender)

    def take(self, index: Ints) -> "People":
        """The people at `index`, in that order; repeated entries repeat the person."""
        return People(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def labels(self, attribute: str) -> list[str]:
        """Class names of one attribute, one per person."""
        classes = PAPER_ATTRIBUTES[attribute]
        return [classes[i] for i in getattr(self, attribute)]


@dataclass(frozen=True)
class Scene:
    """What changes between two pictures of one person: pose, light, expression, clothes, place and style."""

    shift: Floats  # (n, 2) of the head's centre
    scale: Floats
    yaw: Floats  # sideways shift of the features
    roll: Floats  # radians
    light: Floats  # side of the light, -1 left .. 1 right
    brightness: Floats
    smile: Floats
    glasses: Ints  # 0 none, 1 dark frame
    earrings: Ints
    clothes: Ints  # index into world.CLOTHES
    clothes_colour: Floats  # (n, 3)
    headwear: Ints  # index into world.HEADWEAR
    background: Floats  # (n, 2, 3): upper and lower colour
    pattern: Ints  # index into world.PATTERNS
    style: Ints  # index into world.STYLES
    noise: Ints  # seed of the sensor noise and of snow

    def __len__(self) -> int:
        return len(self.scale)

    def take(self, index: Ints) -> "Scene":
        """The scenes at `index`."""
        return Scene(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


def draw_people(gender: Ints, race: Ints, age: Ints, rng: np.random.Generator) -> People:
    """Draw visible features for people of the given perceived gender, group and age (class indices)."""
    n = len(gender)
    male, old = gender == MALE, age == OLD

    def between(low: float, high: float) -> Floats:
        return rng.uniform(low, high, n)

    def by(mask: NDArray[np.bool_], yes: tuple[float, float], no: tuple[float, float]) -> Floats:
        return np.where(mask, between(*yes), between(*no))

    shade = rng.beta(1.6, 1.6, n)[:, None]
    skin = _SKIN[race, 0] * (1 - shade) + _SKIN[race, 1] * shade + rng.normal(0, 0.012, (n, 3))
    pick = rng.random(n)
    hair = np.stack([_HAIR[r][int(p * len(_HAIR[r]))] for r, p in zip(race, pick, strict=True)])
    grey = np.where(old, between(0.65, 1.0), 0.0)[:, None]
    hair = hair * (1 - grey) + between(0.62, 0.88)[:, None] * np.array([1.0, 1.0, 1.02]) * grey
    light_eyes = (race == WMELH) & (rng.random(n) < 0.75)
    eyes = rng.integers(3, size=n)
    long_hair = rng.random(n) < np.where(male, 0.06, 0.86)
    bearded = male & (rng.random(n) < 0.42)
    beard = np.where(bearded, between(0.55, 0.9), 0.0)
    moustache = np.where(bearded, beard, np.where(male & (rng.random(n) < 0.22), between(0.55, 0.9), 0.0))
    return People(
        gender=gender,
        race=race,
        age=age,
        skin=skin.clip(0, 1),
        hair=hair.clip(0, 1),
        iris=np.where(light_eyes[:, None], _LIGHT_EYES[eyes], _DARK_EYES[eyes]),
        hair_length=np.where(long_hair, between(0.75, 1.0), 0.0),
        hairline=np.where(male & (rng.random(n) < np.where(old, 0.38, 0.07)), 1.0, between(0.0, 0.25)),
        curl=np.where(race == BLACK, between(0.55, 1.0), np.where(race == ASIAN, between(0, 0.1), between(0, 0.35))),
        parting=between(0, 2 * np.pi),
        face_width=by(male, (0.395, 0.450), (0.365, 0.415)),
        face_height=by(male, (0.545, 0.605), (0.520, 0.575)),
        jaw=by(male, (0.35, 0.80), (0.0, 0.28)),
        neck=by(male, (0.215, 0.27), (0.155, 0.20)),
        beard=beard,
        moustache=moustache,
        brow=by(male, (0.024, 0.035), (0.012, 0.019)),
        brow_height=by(male, (0.122, 0.146), (0.142, 0.172)),
        eye_distance=between(0.160, 0.186),
        eye_width=between(0.088, 0.106) * np.where(male, 0.97, 1.06),
        eye_height=np.where(race == ASIAN, between(0.032, 0.042), between(0.045, 0.060)) * np.where(male, 0.95, 1.12),
        eye_tilt=np.where(race == ASIAN, between(0.08, 0.20), between(-0.05, 0.08)),
        lashes=by(male, (0.2, 0.5), (0.8, 1.0)),
        nose_width=np.select(
            [race == BLACK, race == ASIAN], [between(0.088, 0.112), between(0.076, 0.096)], between(0.066, 0.092)
        )
        * np.where(male, 1.06, 0.95),
        nose_length=between(0.145, 0.195),
        mouth_width=between(0.145, 0.195),
        lips=np.where(race == BLACK, between(0.050, 0.070), between(0.034, 0.052)) * np.where(male, 0.84, 1.12),
        lip_tint=by(male, (0.05, 0.25), (0.5, 1.0)),
        wrinkles=by(old, (0.65, 1.0), (0.0, 0.06)),
        freckles=np.where((race == WMELH) & (rng.random(n) < 0.15), between(0.3, 0.8), 0.0),
    )


def draw_nuisance(people: People, rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    """The part of a `Scene` that has nothing to do with an occupation: pose, light, expression, glasses."""
    n = len(people)

    def between(low: float, high: float) -> Floats:
        return rng.uniform(low, high, n)

    return {
        "shift": np.stack([between(-0.06, 0.06), between(-0.05, 0.04)], axis=1),
        "scale": between(1.12, 1.27),
        "yaw": between(-0.05, 0.05),
        "roll": between(-0.09, 0.09),
        "light": between(-0.7, 0.7),
        "brightness": between(0.92, 1.06),
        "smile": between(-0.01, 0.05),
        "glasses": (rng.random(n) < np.where(people.age == OLD, 0.28, 0.12)).astype(np.int64),
        "earrings": ((people.gender == FEMALE) & (rng.random(n) < 0.4)).astype(np.int64),
        "noise": rng.integers(1 << 30, size=n),
    }
