"""Captions of the mini world's pictures.

The template of the paper is one of several; explicit attribute words, styles and circumstances are said in some
captions and left open in others, so that the diffusion model learns both to obey words and to fill what is unsaid.
"""

from dataclasses import dataclass

import numpy as np

from distalign.config.attributes import PAPER_ATTRIBUTES
from distalign.miniworld.people import Ints
from distalign.miniworld.world import STYLES, Concept
from distalign.prompts import fill
from distalign.prompts.phrases import ANYONE, phrase

TEMPLATE = "a photo of the face of {a} {concept}, a person"
TEMPLATES = (TEMPLATE, "a photo of {a} {concept}", "a portrait of {a} {concept}", "{a} {concept} at work")
_TEMPLATE_SHARES = (0.62, 0.14, 0.14, 0.10)


@dataclass(frozen=True)
class Draft:
    """What one caption says: a concept or nobody in particular, and the attributes it spells out."""

    concept: Concept | None
    said: dict[str, str]  # attribute -> class


def describe(draft: Draft) -> str:
    """The noun phrase: attribute words in English order, then the concept."""
    return phrase(draft.said, draft.concept.name if draft.concept else ANYONE)


def write_caption(draft: Draft, style: int, rng: np.random.Generator) -> str:
    """One caption; a style other than a plain photo is always said."""
    template = TEMPLATES[rng.choice(len(TEMPLATES), p=_TEMPLATE_SHARES)]
    return with_style(fill(template, describe(draft)), style)


def with_style(caption: str, style: int) -> str:
    """The caption followed by the style or circumstance, unless that is a plain photo."""
    return caption if style == 0 else f"{caption}, {STYLES[style]}"


def read_style(caption: str) -> int:
    """Index of the style a caption names; 0, a plain photo, where it names none."""
    return next((index for index, style in enumerate(STYLES) if index and style in caption.lower()), 0)


def plan_captions(
    concepts: list[Concept], explicit: float, anyone: float, rng: np.random.Generator
) -> tuple[list[Draft], dict[str, Ints]]:
    """Decide for each picture what its caption says.

    A share `explicit` of the captions spells out some attributes, each class equally likely; of those, a share
    `anyone` names no concept. Returns the drafts and per attribute the class index to paint, -1 where left open.
    """
    drafts, forced = [], {a: np.full(len(concepts), -1, np.int64) for a in PAPER_ATTRIBUTES}
    for i, concept in enumerate(concepts):
        said: dict[str, str] = {}
        if rng.random() < explicit:
            chosen = [a for a in PAPER_ATTRIBUTES if rng.random() < 0.55] or [list(PAPER_ATTRIBUTES)[rng.integers(3)]]
            for attribute in chosen:
                forced[attribute][i] = rng.integers(len(PAPER_ATTRIBUTES[attribute]))
                said[attribute] = PAPER_ATTRIBUTES[attribute][forced[attribute][i]]
        nobody = bool(said) and rng.random() < anyone
        drafts.append(Draft(None if nobody else concept, said))
    return drafts, forced
