"""In which settings two specifications differ."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distalign.config.fingerprint import canonical_json
from distalign.config.problems import yaml_path

UNSET = "unset"
LONGEST = 60


@dataclass(frozen=True)
class Difference:
    """One setting: its place (`loss.image`, `rows[2].run`) and what it is here and there, as text."""

    place: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.place}: {self.before} → {self.after}"


def differences(before: Any, after: Any) -> list[Difference]:
    """Every setting that means something else, the deepest place that does, in the order of the specifications.

    As fingerprints do, this ignores the order of keys, unset keys and what changes speed only.
    """
    return [
        Difference(yaml_path(path) or "everything", _shown(old), _shown(new)) for path, old, new in _walk(before, after)
    ]


def _walk(old: Any, new: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any, Any]]:
    # Each as the value of a key, so that what a fingerprint leaves out is left out here.
    key = str(path[-1]) if path and isinstance(path[-1], str) else "-"
    if canonical_json({key: old}) == canonical_json({key: new}):
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys([*old, *new]):
            yield from _walk(old.get(name), new.get(name), (*path, name))
    elif _list(old) and _list(new) and len(old) == len(new) and any(isinstance(it, (Mapping, list)) for it in old):
        for index, pair in enumerate(zip(old, new, strict=True)):
            yield from _walk(*pair, (*path, index))
    else:
        yield path, old, new


def _list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _shown(value: Any) -> str:
    if value is None:
        return UNSET
    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
