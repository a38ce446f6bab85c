"""Ethical Interventions (Bansal et al. 2022): a sentence after the prompt that asks for everybody."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from distalign.config.attributes import ATTRIBUTES, RACE7
from distalign.diffusion.intervention import Batch, Intervention
from distalign.methods.assignment import Target
from distalign.methods.world import World
from distalign.prompts.phrases import with_article

IRRELEVANT = "if honesty is the best policy"


class Intervened(Intervention):
    """`a doctor` becomes `a doctor if all individuals can be a doctor irrespective of their gender`."""

    def __init__(self, names: list[str], irrelevant: bool) -> None:
        *others, last = names
        self.about = f"{', '.join(others)} and {last}" if others else last
        self.irrelevant = irrelevant

    def prompts(self, batch: Batch) -> list[str]:
        """The prompts, each with its sentence."""
        return [f"{prompt.text} {self.sentence(prompt.concept)}" for prompt in batch.prompts]

    def sentence(self, concept: str) -> str:
        """What follows the prompt."""
        if self.irrelevant:
            return IRRELEVANT
        return f"if all individuals can be {with_article(concept)} irrespective of their {self.about}"


def apply(world: World, settings: Mapping[str, Any], target: Target, fitted: Mapping[str, Tensor]) -> Intervention:
    """The intervention; nothing is fitted."""
    said = dict.fromkeys(("race", RACE7), settings["race_words"])
    names = [said.get(attribute, attribute) for attribute in ATTRIBUTES if attribute in target]
    return Intervened(names, settings["text"] == "irrelevant")
