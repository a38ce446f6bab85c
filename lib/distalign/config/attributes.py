"""The attributes a face classifier reads, and their classes in the one order used everywhere.

They are perceived attributes: what a classifier says of a picture. Two genders and four groups are the paper's
limits (section 5), not statements about people.
"""

from collections.abc import Iterable

PAPER_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "gender": ("female", "male"),
    "race": ("wmelh", "asian", "black", "indian"),
    "age": ("young", "old"),
}
# The seven groups that FairFace labels, which the paper joins to four. Rendered faces and CelebA do not have them.
RACE7 = "race7"
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    **PAPER_ATTRIBUTES,
    RACE7: ("white", "middle_eastern", "latino_hispanic", "east_asian", "southeast_asian", "black", "indian"),
}
LABELLED: dict[str, tuple[str, ...]] = {  # what a source of faces labels
    "rendered": tuple(PAPER_ATTRIBUTES),
    "celeba": ("gender", "age"),
    "fairface": tuple(ATTRIBUTES),
}
# The word a prompt says for a class. "white" stands for the paper's group of white, Middle Eastern and Latino-Hispanic
# perceived faces (wmelh).
WORDS: dict[str, dict[str, str]] = {
    "gender": {"female": "female", "male": "male"},
    "race": {"wmelh": "white", "asian": "asian", "black": "black", "indian": "indian"},
    "age": {"young": "young", "old": "old"},
    RACE7: {
        "white": "white",
        "middle_eastern": "middle eastern",
        "latino_hispanic": "latino",
        "east_asian": "east asian",
        "southeast_asian": "southeast asian",
        "black": "black",
        "indian": "indian",
    },
}
READER = "reader"  # the independent reader's name among the classifiers


def combinable(attributes: Iterable[str]) -> bool:
    """Whether attributes say different things: not both groupings of race, of which the finer one says all."""
    return not {"race", RACE7} <= {*attributes}
