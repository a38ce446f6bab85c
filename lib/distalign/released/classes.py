"""The classes of the authors' networks and labels, in the order of their outputs (README of each experiment)."""

from distalign.config.attributes import ATTRIBUTES

CLASSES: dict[str, tuple[str, ...]] = {
    "gender": ("female", "male"),
    "race": ("wmelh", "black", "indian", "asian"),
    "age": ("young", "old"),
}


def ours(attribute: str) -> list[int]:
    """Our index of each of the authors' classes."""
    return [ATTRIBUTES[attribute].index(name) for name in CLASSES[attribute]]


def theirs(attribute: str) -> list[int]:
    """The authors' index of each of our classes."""
    return [CLASSES[attribute].index(name) for name in ATTRIBUTES[attribute]]
