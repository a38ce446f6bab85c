"""The oracle rows: the class is said in the prompt, drawn for each image from the target."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from distalign.diffusion.intervention import Batch, Intervention
from distalign.methods.assignment import Target, assign, cells
from distalign.methods.world import World
from distalign.prompts.phrases import say


class ExplicitPrompt(Intervention):
    """`a doctor` becomes `a female doctor`, by exact quota or drawn for each image by itself."""

    def __init__(self, target: Target, assignment: str) -> None:
        self.target, self.assignment, self.cells = target, assignment, cells(target)

    def prompts(self, batch: Batch) -> list[str]:
        """The prompts with the words of each image's cell."""
        chosen = assign(self.target, batch, self.assignment)
        return [say(prompt, self.cells[cell]).text for prompt, cell in zip(batch.prompts, chosen, strict=True)]


def apply(world: World, settings: Mapping[str, Any], target: Target, fitted: Mapping[str, Tensor]) -> Intervention:
    """The intervention; nothing is fitted."""
    return ExplicitPrompt(target, settings["assignment"])
