"""Attributes said in words: noun phrases, and prompts that spell out a class."""

import re
from collections.abc import Mapping
from dataclasses import replace

from distalign.config.attributes import RACE7, WORDS
from distalign.prompts.prompt_set import Prompt, article

ANYONE = "person"
_ORDER = ("age", "race", RACE7, "gender")  # as English puts them


def phrase(classes: Mapping[str, str], noun: str = ANYONE) -> str:
    """Attribute words in English order, then the noun: {gender: female, age: old} and `doctor`, `old female doctor`."""
    return " ".join([*(WORDS[a][classes[a]] for a in _ORDER if a in classes), noun])


def say(prompt: Prompt, classes: Mapping[str, str]) -> Prompt:
    """The prompt with the words of `classes` before its concept, or at its end where the text does not name that."""
    return _renamed(prompt, phrase(classes, prompt.concept), f", {with_article(phrase(classes))}")


def of_anyone(prompt: Prompt, classes: Mapping[str, str]) -> Prompt:
    """The prompt with its concept replaced by `person`, or a person with words for `classes`."""
    return _renamed(prompt, phrase(classes), f", {with_article(phrase(classes))}")


def with_article(noun: str) -> str:
    """`a doctor`, `an asian doctor`."""
    return f"{article(noun)} {noun}"


def _renamed(prompt: Prompt, noun: str, otherwise: str) -> Prompt:
    """The text with the concept as `noun`, its article to match."""
    found = re.search(rf"(\b(?P<article>an?) )?\b{re.escape(prompt.concept)}\b", prompt.text, re.IGNORECASE)
    if not found:
        return replace(prompt, text=prompt.text + otherwise)
    words = with_article(noun) if found["article"] else noun
    if found[0][0].isupper():
        words = words[0].upper() + words[1:]
    return replace(prompt, text=prompt.text[: found.start()] + words + prompt.text[found.end() :])
