"""The authors' prompt lists, as prompt sets (`distalign.prompts.load_prompts`).

occupation.json has prompt_templates_train and prompt_templates_test (in which {occupation} stands for one),
occupations_train_set, occupations_val_set, and test_prompts written out. The other files have some of train_prompts,
val_prompts and test_prompts, written out.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from distalign.errors import UserError
from distalign.prompts.prompt_set import fill, slug

log = logging.getLogger(__name__)
NAMES = (
    "occupation", "occupation_w_style_and_context", "personal_descriptor", "sports",
    "LAION-aesthetics-V2-occupation-related",
)  # fmt: skip
FIELD = "{occupation}"
MADE = {  # split -> templates, and what is put into them
    "train": ("prompt_templates_train", "occupations_train_set"),
    "validation": ("prompt_templates_test", "occupations_val_set"),
}
WRITTEN = {"train": "train_prompts", "validation": "val_prompts", "test": "test_prompts"}

Item = tuple[str, str]  # concept, text


def convert_prompts(data: bytes, source: str) -> dict[str, Any]:
    """The content of one of our prompt files from one of theirs.

    A prompt they have in several splits stays in the last of train, validation and test, as ours are disjoint; one that
    is there twice, once. Both are logged and counted in the description.

    Raises:
        UserError: it is not JSON, or lacks a key or has something else under it.
    """
    try:
        content = json.loads(data)
    except ValueError as error:
        raise UserError(f"{source}: not a JSON file ({error}). Download it again.") from None
    if not isinstance(content, dict):
        raise UserError(f"{source}: should hold lists by name.")
    if "occupations_train_set" in content or "prompt_templates_train" in content:
        template, splits = _made(content, source)
        known = {key for keys in MADE.values() for key in keys} | {WRITTEN["test"]}
    else:
        template, known = "{concept}", set(WRITTEN.values())
        there = {split: key for split, key in WRITTEN.items() if key in content}
        splits = {split: [(text, text) for text in _list(content, key, source)] for split, key in there.items()}
        if "test" not in splits:
            raise UserError(f"{source}: lacks {WRITTEN['test']}. It has {', '.join(content)}.")
    if unused := content.keys() - known:
        log.warning("%s: not used: %s", source, ", ".join(sorted(unused)))
    splits, left_out = _disjoint(splits, source)
    note = f" {left_out} repeated prompts were left out." if left_out else ""
    return {
        "description": f"The authors' {source}.{note}",
        "template": template,
        "splits": {split: [_item(template, *item) for item in items] for split, items in splits.items()},
    }


def _made(content: Mapping[str, Any], source: str) -> tuple[str, dict[str, list[Item]]]:
    """Our template, and the prompts of occupation.json."""
    splits = {}
    templates: dict[str, list[str]] = {}
    for split, (key, concepts) in MADE.items():
        own = templates[split] = _list(content, key, source)
        if wrong := [template for template in own if template.count(FIELD) != 1 or template.count("{") != 1]:
            raise UserError(f"{source}: {key} has {wrong[0]!r}, which should contain {FIELD} once.")
        named = _list(content, concepts, source)
        splits[split] = [(concept, template.replace(FIELD, concept)) for template in own for concept in named]
    known = templates["validation"]
    splits["test"] = [(_concept(text, known), text) for text in _list(content, WRITTEN["test"], source)]
    return templates["train"][0].replace(FIELD, "{concept}"), splits


def _concept(text: str, templates: Sequence[str]) -> str:
    """What was put into one of the templates; the text itself where none fits."""
    for template in templates:
        before, after = template.split(FIELD)
        if match := re.fullmatch(f"{re.escape(before)}(.+){re.escape(after)}", text):
            return match[1]
    return text


def _item(template: str, concept: str, text: str) -> Any:
    return concept if fill(template, concept) == text else {"concept": concept, "text": text}


def _disjoint(splits: Mapping[str, Sequence[Item]], source: str) -> tuple[dict[str, list[Item]], int]:
    """The splits with every prompt once, and how many were left out."""
    seen: set[str] = set()
    left_out: list[str] = []
    kept: dict[str, list[Item]] = {}
    for split in reversed(WRITTEN):
        for concept, text in splits.get(split, ()):
            if slug(text) in seen:
                left_out.append(text)
            else:
                kept.setdefault(split, []).append((concept, text))
            seen.add(slug(text))
    if left_out:
        log.warning("%s: %d prompts are there more than once, as %r", source, len(left_out), left_out[0])
    return {split: kept[split] for split in WRITTEN if split in kept}, len(left_out)


def _list(content: Mapping[str, Any], key: str, source: str) -> list[str]:
    value = content.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and slug(item) for item in value):
        have = ", ".join(content)
        raise UserError(f"{source}: {key} should be a list of words or texts, and not empty. The file has {have}.")
    return value
