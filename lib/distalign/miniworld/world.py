"""The mini world: its concepts, how each looks, and the skews that the diffusion model learns.

A *concept* is an occupation, a sport or a personal description. It has a look, made of parts that concepts share
(background, clothes, colour, headwear), and a skew: how often each perceived gender, group and age appears under
its name. Most occupations are two words, a place ("harbor") and a trade ("engineer"): the place decides the
background, the trade the clothes, and both pull on the skew, so that held-out occupations are new pairs of known
words. The others are single words of their own. The skews are made up; they mirror the kind and the size of the
bias that Stable Diffusion shows, not the world.

Numbers come from a hash of the name, so that adding a concept changes no other.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

CLOTHES = ("t-shirt", "scrubs", "suit", "apron", "vest", "turtleneck")
HEADWEAR = ("none", "cap", "helmet", "toque", "headband")
PATTERNS = ("plain", "horizon", "stripes")
STYLES = ("photo", "black and white", "oil painting", "at night", "in the snow", "at sunset")

RGB = tuple[float, float, float]
CLOTH_COLOURS: dict[str, RGB] = {
    "white": (0.95, 0.95, 0.95),
    "navy": (0.13, 0.20, 0.45),
    "green": (0.20, 0.52, 0.24),
    "red": (0.76, 0.14, 0.14),
    "yellow": (0.93, 0.76, 0.15),
    "charcoal": (0.17, 0.17, 0.19),
    "teal": (0.22, 0.66, 0.70),
    "plum": (0.60, 0.26, 0.58),
}
# name: (pattern, upper colour, lower colour)
BACKGROUNDS: dict[str, tuple[str, RGB, RGB]] = {
    "grey wall": ("plain", (0.84, 0.84, 0.85), (0.72, 0.72, 0.74)),
    "sky": ("plain", (0.48, 0.68, 0.92), (0.72, 0.86, 0.96)),
    "leaves": ("plain", (0.40, 0.66, 0.36), (0.30, 0.52, 0.28)),
    "orange wall": ("plain", (0.95, 0.62, 0.30), (0.84, 0.48, 0.22)),
    "lilac wall": ("plain", (0.74, 0.62, 0.86), (0.62, 0.50, 0.76)),
    "rose wall": ("plain", (0.94, 0.60, 0.66), (0.86, 0.48, 0.55)),
    "dark room": ("plain", (0.24, 0.22, 0.26), (0.16, 0.15, 0.18)),
    "wood": ("plain", (0.52, 0.36, 0.22), (0.42, 0.28, 0.17)),
    "sea": ("horizon", (0.80, 0.90, 0.96), (0.14, 0.36, 0.62)),
    "field": ("horizon", (0.60, 0.80, 0.96), (0.42, 0.62, 0.22)),
    "desert": ("horizon", (0.96, 0.88, 0.70), (0.80, 0.58, 0.32)),
    "runway": ("horizon", (0.70, 0.74, 0.80), (0.34, 0.35, 0.38)),
    "blue stripes": ("stripes", (0.90, 0.93, 0.97), (0.42, 0.56, 0.84)),
    "red stripes": ("stripes", (0.97, 0.93, 0.88), (0.82, 0.36, 0.32)),
    "green stripes": ("stripes", (0.92, 0.96, 0.88), (0.34, 0.62, 0.46)),
    "dark stripes": ("stripes", (0.58, 0.52, 0.46), (0.30, 0.26, 0.23)),
}

# place: (background, pull towards male in logits, share of wmelh moved up or down)
_PLACES: dict[str, tuple[str, float, float]] = {
    "hospital": ("grey wall", -0.7, -0.02),
    "airport": ("runway", 0.5, 0.02),
    "school": ("orange wall", -0.7, -0.02),
    "bank": ("blue stripes", 0.4, 0.04),
    "harbor": ("sea", 0.7, 0.00),
    "forest": ("leaves", 0.5, 0.05),
    "museum": ("lilac wall", -0.4, 0.05),
    "theater": ("red stripes", -0.5, 0.00),
    "factory": ("dark stripes", 0.6, -0.05),
    "hotel": ("rose wall", -0.6, -0.04),
    "farm": ("field", 0.5, 0.03),
    "railway": ("dark room", 0.6, -0.02),
    "desert": ("desert", 0.3, -0.04),
    "library": ("wood", -0.6, 0.04),
    "garden": ("green stripes", -0.4, 0.02),
    "observatory": ("sky", 0.4, 0.04),
}
# trade: (clothes, colour, headwear, pull towards male in logits)
_TRADES: dict[str, tuple[str, str, str, float]] = {
    "engineer": ("vest", "navy", "helmet", 1.9),
    "technician": ("vest", "teal", "none", 1.5),
    "clerk": ("suit", "plum", "none", -0.9),
    "guard": ("turtleneck", "navy", "cap", 1.8),
    "manager": ("suit", "charcoal", "none", 1.4),
    "inspector": ("suit", "navy", "cap", 1.2),
    "assistant": ("t-shirt", "yellow", "none", -1.7),
    "cleaner": ("apron", "teal", "headband", -1.8),
    "driver": ("t-shirt", "charcoal", "cap", 1.7),
    "instructor": ("t-shirt", "red", "headband", -0.5),
    "cook": ("apron", "red", "toque", 0.9),
    "physician": ("scrubs", "white", "none", 1.0),
    "nurse": ("scrubs", "teal", "none", -2.2),
    "designer": ("turtleneck", "plum", "none", -1.5),
    "analyst": ("t-shirt", "green", "none", 0.6),
    "mechanic": ("scrubs", "navy", "helmet", 2.0),
    "receptionist": ("turtleneck", "red", "none", -2.1),
    "planner": ("scrubs", "yellow", "none", -1.3),
}
_ONE_WORD = {
    1.8: "astronomer butcher carpenter electrician firefighter fisher geologist inventor judge locksmith miner pilot "
    "plumber sailor senator soldier surgeon surveyor welder blacksmith",
    0.9: "accountant architect biologist chemist dentist economist farmer historian journalist lawyer mathematician "
    "musician philosopher photographer physicist potter sculptor watchmaker barber jeweler",
    -0.9: "actor baker bookkeeper editor optician painter pharmacist poet psychologist singer tailor translator "
    "veterinarian waiter weaver writer zoologist botanist cartographer archivist",
    -1.8: "cashier dancer dietitian florist hairdresser housekeeper janitor librarian midwife nanny secretary "
    "seamstress stylist teacher therapist milliner masseur caregiver typist perfumer",
}
_SPORTS = (
    "tennis swimming boxing climbing cycling fencing rowing running sailing skating skiing surfing judo golf "
    "badminton archery gymnastics rugby cricket hockey volleyball wrestling karate diving"
)
_DESCRIPTIONS = (
    "ambitious brave calm charming confident curious friendly generous gentle happy honest humble kind lonely loyal "
    "modest patient polite proud quiet serious shy wise witty"
)
VALIDATION = (
    "harbor assistant", "bank inspector", "library mechanic", "hotel physician", "railway designer", "farm planner",
    "economist", "optician", "welder", "typist",
)  # fmt: skip
TEST = (
    "hospital engineer", "airport nurse", "school guard", "bank receptionist", "harbor cook", "forest analyst",
    "museum manager", "theater technician", "factory cleaner", "hotel driver", "farm instructor", "railway clerk",
    "desert physician", "library planner", "garden inspector", "observatory designer",
    "senator", "geologist", "photographer", "accountant", "veterinarian", "poet", "dietitian", "secretary",
)  # fmt: skip
# The same for sports and descriptions.
VALIDATION_OTHERS = (
    "fencing player", "skiing player", "running player", "ambitious person", "happy person", "quiet person",
)  # fmt: skip
TEST_OTHERS = (
    "tennis player", "skating player", "golf player", "diving player", "cricket player", "surfing player",
    "climbing player", "hockey player",
    "calm person", "generous person", "gentle person", "honest person", "patient person", "shy person",
    "polite person", "lonely person",
)  # fmt: skip


@dataclass(frozen=True)
class Look:
    """Index of the background, clothes, colour of clothes and headwear, in the order of the tables above."""

    background: int
    clothes: int
    colour: int
    headwear: int

    @property
    def parts(self) -> tuple[int, int, int, int]:
        """The four indices."""
        return (self.background, self.clothes, self.colour, self.headwear)


PART_SIZES = (len(BACKGROUNDS), len(CLOTHES), len(CLOTH_COLOURS), len(HEADWEAR))


@dataclass(frozen=True)
class Concept:
    """One word or pair of words, how it looks, and whom the training pictures show under it."""

    name: str
    kind: str  # occupation | sport | description
    split: str  # train | validation | test
    look: Look
    male: float  # share of perceived men among its training pictures
    race: tuple[float, float, float, float]  # shares in the order of PAPER_ATTRIBUTES["race"]
    old: float


def _unit(*key: str) -> float:
    """A fixed number in [0, 1) for a key."""
    digest = hashlib.blake2b("/".join(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _race_shares(name: str, shift: float) -> tuple[float, float, float, float]:
    leading = min(0.87, max(0.55, 0.73 + shift + 0.16 * (_unit(name, "wmelh") - 0.5)))
    weights = [0.6 + _unit(name, group) for group in ("asian", "black", "indian")]
    rest = [(1 - leading) * w / sum(weights) for w in weights]
    return (leading, rest[0], rest[1], rest[2])


def _make(name: str, kind: str, look: Look, pull: float, shift: float = 0.0) -> Concept:
    noise = 0.5 * (_unit(name, "male") - 0.5)
    male = min(0.93, max(0.07, 1 / (1 + math.exp(-(pull + noise)))))
    held_out = dict.fromkeys(VALIDATION + VALIDATION_OTHERS, "validation") | dict.fromkeys(TEST + TEST_OTHERS, "test")
    split = held_out.get(name, "train")
    old = 0.12 + 0.30 * _unit(name, "old")
    return Concept(name, kind, split, look, male, _race_shares(name, shift), old)


def _pairs() -> Iterator[Concept]:
    backgrounds, colours = list(BACKGROUNDS), list(CLOTH_COLOURS)
    for place, (background, place_pull, shift) in _PLACES.items():
        for trade, (clothes, colour, headwear, trade_pull) in _TRADES.items():
            name = f"{place} {trade}"
            # A seventh of the pairs stays unused, so that neither word is always seen with every other.
            if _unit(name, "used") < 1 / 7 and name not in VALIDATION + TEST:
                continue
            look = Look(
                backgrounds.index(background), CLOTHES.index(clothes), colours.index(colour), HEADWEAR.index(headwear)
            )
            yield _make(name, "occupation", look, 1.05 * trade_pull + 0.9 * place_pull, shift)


def _distance(a: Look, b: Look) -> int:
    return sum(x != y for x, y in zip(a.parts, b.parts, strict=True))


def _free_look(name: str, taken: list[Look]) -> Look:
    """A look of its own for a one-word concept, if possible at least two parts away from every look taken so far."""
    tries = [
        Look(*(int(_unit(name, "look", str(attempt), str(part)) * size) for part, size in enumerate(PART_SIZES)))
        for attempt in range(200)
    ]
    for apart in (2, 1):
        for look in tries:
            if all(_distance(look, other) >= apart for other in taken):
                return look
    raise AssertionError(f"no look is left for {name!r}")


@cache
def concepts() -> dict[str, Concept]:
    """All concepts of the mini world by name: occupations, then sports, then descriptions."""
    made = list(_pairs())
    taken = [c.look for c in made]

    def add(name: str, kind: str, pull: float, shift: float = 0.0) -> None:
        look = _free_look(name, taken)
        taken.append(look)
        made.append(_make(name, kind, look, pull, shift))

    for pull, names in _ONE_WORD.items():
        for name in names.split():
            add(name, "occupation", pull, 0.06 * (_unit(name, "shift") - 0.5))
    for name in _SPORTS.split():
        add(f"{name} player", "sport", 4.0 * (_unit(name, "pull") - 0.45))
    for name in _DESCRIPTIONS.split():
        add(f"{name} person", "description", 2.6 * (_unit(name, "pull") - 0.5))
    return {c.name: c for c in made}


def occupations(split: str | None = None) -> list[Concept]:
    """The occupations, all or those of one split, in a fixed order."""
    return of_kind("occupation", split)


def of_kind(kind: str, split: str | None = None) -> list[Concept]:
    """Concepts of a kind (occupation, sport, description), all or those of one split, in a fixed order."""
    return [c for c in concepts().values() if c.kind == kind and split in (None, c.split)]
