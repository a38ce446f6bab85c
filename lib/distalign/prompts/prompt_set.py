"""Prompts with stable, readable ids, made from a template and the concepts of a split."""

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distalign.config.files import read_json
from distalign.errors import UserError

SPLITS = ("train", "validation", "test")
FIELDS = {"concept", "a"}


@dataclass(frozen=True)
class Prompt:
    """One prompt. `id` is a slug of the concept: stable, readable, unique in its set.

    Finetuning visits the groups of the training split equally often; where a split is one list, all are of one group.
    """

    id: str
    text: str
    concept: str
    split: str
    group: str = ""


@dataclass(frozen=True)
class PromptSet:
    """A template and the prompts it makes, in the order of the file."""

    template: str
    prompts: tuple[Prompt, ...]

    def split(self, name: str) -> list[Prompt]:
        """The prompts of `train`, `validation` or `test`.

        Raises:
            UserError: there is no such split.
        """
        if name not in SPLITS:
            raise UserError(f"a prompt set has no split {name!r}; it has {', '.join(SPLITS)}.")
        return [prompt for prompt in self.prompts if prompt.split == name]


def load_prompts(path: Path) -> PromptSet:
    """Read a prompt set.

    Args:
        path: JSON with `template`, in which {concept} stands for the concept and {a} for its article, and `splits`:
            train, validation and test, each a list of concepts, or several by the names of their groups. Further keys
            are for people.

    Raises:
        UserError: the file cannot be read, lacks something, or names a concept twice.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("template"), str):
        raise UserError(f"{path}: should hold a template, such as 'A photo of the face of a {{concept}}, a person'.")
    splits = content.get("splits")
    if not isinstance(splits, dict) or sorted(splits) != sorted(SPLITS):
        raise UserError(f"{path}: splits should be {', '.join(SPLITS)}, each a list of concepts, or groups of them.")
    template = content["template"]
    _check_template(path, template)
    prompts = [
        Prompt(slug(concept), fill(template, concept), concept, split, group)
        for split in SPLITS
        for group, concept in _concepts(path, split, splits[split])
    ]
    _check_unique(path, prompts)
    return PromptSet(template, tuple(prompts))


def slug(concept: str) -> str:
    """`farm equipment service technician` as `farm-equipment-service-technician`."""
    return re.sub(r"[^a-z0-9]+", "-", concept.lower()).strip("-")


def fill(template: str, concept: str) -> str:
    """The template with its concept, and `a` or `an` by the first letter where it asks for {a}."""
    return template.format(concept=concept, a="an" if concept[0].lower() in "aeiou" else "a")


def _check_template(path: Path, template: str) -> None:
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise UserError(f"{path}: the template {template!r} is malformed: {error}.") from None
    if "concept" not in fields or fields - FIELDS:
        raise UserError(
            f"{path}: the template {template!r} should contain {{concept}}, and of other fields only {{a}}."
        )


def _concepts(path: Path, split: str, concepts: Any) -> Iterator[tuple[str, str]]:
    """(group, concept) of a split."""
    groups = concepts if isinstance(concepts, dict) and concepts else {"": concepts}
    for group, members in groups.items():
        place = f"{split}.{group}" if group else split
        if not isinstance(members, list) or not members:
            raise UserError(f"{path}: split {place} should be a list of concepts, and not empty.")
        for index, concept in enumerate(members):
            if not isinstance(concept, str) or not slug(concept):
                raise UserError(f"{path}: splits.{place}[{index}] is {concept!r}; it should be a word or words.")
            yield group, concept


def _check_unique(path: Path, prompts: list[Prompt]) -> None:
    first: dict[str, Prompt] = {}
    for prompt in prompts:
        other = first.setdefault(prompt.id, prompt)
        if other is not prompt:
            message = f"{prompt.concept!r} ({prompt.split}) and {other.concept!r} ({other.split}) are the same concept"
            raise UserError(f"{path}: {message}; every concept stands once, in one split.")
