"""Prompts with stable, readable ids: made from a template and the concepts of a split, or written out."""

import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distalign.config.files import read_json
from distalign.errors import UserError

SPLITS = ("train", "validation", "test")
FIELDS = {"concept", "a"}
# Where the first letter misleads: `university`, `user`, `urologist`, `European`, `one`; not `uninsured`, `usher`.
_CONSONANT_SOUND = re.compile(r"uni(?!n|m)|us[aeiu]|uro|util|ute|eu|one\b|once\b", re.IGNORECASE)
_SILENT_H = re.compile(r"honest|honou?r|hour|heir", re.IGNORECASE)


@dataclass(frozen=True)
class Prompt:
    """One prompt. `id` is a slug of the concept, or of the text where that is written out: readable, unique in its set.

    Finetuning visits prompt sets equally often, and in each the groups of its training split; where a split is one
    list, all are of one group.
    """

    id: str
    text: str
    concept: str
    split: str
    group: str = ""
    set: str = ""


@dataclass(frozen=True)
class PromptSet:
    """The prompts of a file, in its order."""

    prompts: tuple[Prompt, ...]

    def split(self, name: str, at_most: int | None = None) -> list[Prompt]:
        """The prompts of `train`, `validation` or `test`; where there are more than `at_most`, so many, evenly spread.

        Raises:
            UserError: there is no such split.
        """
        if name not in SPLITS:
            raise UserError(f"a prompt set has no split {name!r}; it has {', '.join(SPLITS)}.")
        return spread([prompt for prompt in self.prompts if prompt.split == name], at_most)


def spread(prompts: Sequence[Prompt], at_most: int | None) -> list[Prompt]:
    """As many of the prompts, evenly spread over them, the first included."""
    if at_most is None or at_most >= len(prompts):
        return list(prompts)
    return [prompts[i * len(prompts) // at_most] for i in range(at_most)]


def load_prompts(path: Path) -> PromptSet:
    """Read a prompt set.

    Args:
        path: JSON with `template`, in which {concept} stands for the concept and {a} for its article, and `splits`:
            some of train, validation and test, each a list, or several by the names of their groups. An item is a
            concept, put into the template, or {"concept": ..., "text": ...} with the whole prompt. Further keys are
            for people.

    Raises:
        UserError: the file cannot be read, lacks something, or holds a prompt twice.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("template"), str):
        raise UserError(f"{path}: should hold a template, such as 'A photo of the face of a {{concept}}, a person'.")
    splits = content.get("splits")
    if not isinstance(splits, dict) or not splits or set(splits) - set(SPLITS):
        raise UserError(
            f"{path}: splits should be some of {', '.join(SPLITS)}, each a list of concepts, or groups of them."
        )
    template = content["template"]
    _check_template(path, template)
    prompts = [
        Prompt(slug(name), text, concept, split, group, path.stem)
        for split in SPLITS
        if split in splits
        for group, name, concept, text in _items(path, split, splits[split], template)
    ]
    _check_unique(path, prompts)
    return PromptSet(tuple(prompts))


def load_split(paths: Sequence[Path], split: str) -> list[Prompt]:
    """The prompts of one split of several sets, one set after the other.

    Raises:
        UserError: as `load_prompts` and `PromptSet.split`.
    """
    return [prompt for path in paths for prompt in load_prompts(path).split(split)]


def slug(concept: str) -> str:
    """`farm equipment service technician` as `farm-equipment-service-technician`."""
    return re.sub(r"[^a-z0-9]+", "-", concept.lower()).strip("-")


def fill(template: str, concept: str) -> str:
    """The template with its concept, and `a` or `an` where it asks for {a}."""
    return template.format(concept=concept, a=article(concept))


def article(noun: str) -> str:
    """`a` or `an`, by the sound: `a university professor`, `an honest person`."""
    if _CONSONANT_SOUND.match(noun):
        return "a"
    return "an" if _SILENT_H.match(noun) or noun[0].lower() in "aeiou" else "a"


def _check_template(path: Path, template: str) -> None:
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise UserError(f"{path}: the template {template!r} is malformed: {error}.") from None
    if "concept" not in fields or fields - FIELDS:
        raise UserError(
            f"{path}: the template {template!r} should contain {{concept}}, and of other fields only {{a}}."
        )


def _items(path: Path, split: str, items: Any, template: str) -> Iterator[tuple[str, str, str, str]]:
    """(group, what the id is made of, concept, text) of each prompt of a split."""
    groups = items if isinstance(items, dict) and items else {"": items}
    for group, members in groups.items():
        place = f"{split}.{group}" if group else split
        if not isinstance(members, list) or not members:
            raise UserError(f"{path}: split {place} should be a list of concepts, and not empty.")
        for index, item in enumerate(members):
            if isinstance(item, dict) and sorted(item) == ["concept", "text"]:
                concept, text = item["concept"], item["text"]
                name = text
            else:
                concept = name = item
                text = fill(template, concept) if isinstance(concept, str) and concept else ""
            if not all(isinstance(word, str) and slug(word) for word in (concept, text)):
                raise UserError(
                    f"{path}: splits.{place}[{index}] is {item!r}; it should be a word or words, or a concept and "
                    "the text of its prompt."
                )
            yield group, name, concept, text


def _check_unique(path: Path, prompts: list[Prompt]) -> None:
    first: dict[str, Prompt] = {}
    for prompt in prompts:
        other = first.setdefault(prompt.id, prompt)
        if other is not prompt:
            message = f"{prompt.text!r} ({prompt.split}) and {other.text!r} ({other.split}) are the same prompt"
            raise UserError(f"{path}: {message}; every prompt stands once, in one split.")
