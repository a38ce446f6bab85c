"""What a reader of a published data set says of each photograph, and what is wrong with some of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from distalign.errors import UserError

UNREADABLE = "image that cannot be read"
UNLABELLED = "image without labels"
PICTURELESS = "labels without an image"
DOUBLE = "image or labels that are there before"
UNKNOWN_LABEL = "labels that are not known"
OTHER_SIZE = "image of another size"
DEFECTS = (UNREADABLE, UNLABELLED, PICTURELESS, DOUBLE, UNKNOWN_LABEL, OTHER_SIZE)
NO_FACE = "image without a detected face"
LISTED = 1000  # of each kind in the metadata
SHOWN = 3


class Photograph(NamedTuple):
    """A labelled photograph; what is not known of it is None.

    Attributes:
        name: Unique within its data set.
        place: Where its reader finds it.
        split: `train`, `validation` or `test`.
        gender: Perceived gender, a class word.
        race: Perceived race, a class word.
        age: Perceived age, a class word.
        identity: Which person.
        published_race: The word of the data set.
        published_age: The word of the data set.
    """

    name: str
    place: Any
    split: str
    gender: str | None
    race: str | None
    age: str | None
    identity: int | None = None
    published_race: str | None = None
    published_age: str | None = None


class Source(Protocol):
    """A published data set in one of the forms it has."""

    def photographs(self, defects: "Defects") -> list[Photograph]:
        """All that have labels and an image, in the order of the data set."""
        ...

    def images(self, photographs: Sequence[Photograph]) -> Iterator[tuple[Photograph, bytes | None]]:
        """These photographs, in an order of the source's own, with the bytes of their images; None: unreadable."""
        ...


@dataclass
class Defects:
    """Names of what was left out, by what is wrong with it.

    Attributes:
        data_set: The data set, for messages.
        allowed: Largest share of defects.
        allowed_missed: Largest share of images without a face.
    """

    data_set: str
    allowed: float
    allowed_missed: float
    found: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in (*DEFECTS, NO_FACE)})

    def add(self, kind: str, name: str) -> None:
        """Note one."""
        self.found[kind].append(name)

    def counts(self) -> dict[str, int]:
        """How many of each kind."""
        return {kind: len(names) for kind, names in self.found.items()}

    def report(self) -> dict[str, Mapping[str, Any]]:
        """Count of each kind and the names, at most `LISTED` of them."""
        return {kind: {"count": len(names), "names": names[:LISTED]} for kind, names in self.found.items()}

    def check(self, images: int, read: int) -> None:
        """Refuse a data set with too many.

        Args:
            images: How many there would be without any defect.
            read: How many of them are looked at.

        Raises:
            UserError: with count and examples of each kind.
        """
        broken = sum(len(self.found[kind]) for kind in DEFECTS)
        if broken > self.allowed * images:
            kinds = [kind for kind in DEFECTS if self.found[kind]]
            raise UserError(
                f"{self.data_set}: {broken} of {images} have defects, more than allowed_defects ({self.allowed:g}): "
                f"{'; '.join(map(self._line, kinds))}. Get the data set anew, or allow more in the preset."
            )
        missed = len(self.found[NO_FACE])
        if missed > self.allowed_missed * read:
            raise UserError(
                f"{self.data_set}: no face found in {missed} of {read}, more than allowed_missed "
                f"({self.allowed_missed:g}): {self._line(NO_FACE)}. Look at some; if they show faces, the preset's "
                "detector is too strict for their size, or allow more in the preset."
            )

    def _line(self, kind: str) -> str:
        names = self.found[kind]
        more = ", ..." if len(names) > SHOWN else ""
        return f"{len(names)} {kind} ({', '.join(names[:SHOWN])}{more})"
