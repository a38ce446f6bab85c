"""What a training iteration renders: prompts, number of sampler steps and noises, a pure function of seed and number.

Because it is, what the frozen model makes of the same noises is computed once per plan and shared by all runs
(`originals.py`), every process knows its part without being told, and a resumed run goes on as if never interrupted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distalign.errors import UserError
from distalign.prompts import Prompt
from distalign.store.seeds import stable_seed


@dataclass(frozen=True)
class Iteration:
    """N images, those of the first prompt first.

    Attributes:
        slot: the iteration, counted within the noise period.
        prompts: (P,), the same one twice where two passes over a group meet.
        steps: number of sampler steps.
        prompt_index: (N,), which prompt an image shows.
        index: (N,), which image of its prompt it is, counted over all visits of the prompt.
        noise_seeds: (N,).
    """

    slot: int
    prompts: tuple[Prompt, ...]
    steps: int
    prompt_index: tuple[int, ...]
    index: tuple[int, ...]
    noise_seeds: tuple[int, ...]


@dataclass(frozen=True)
class TrainingPlan:
    """The iterations of a plan.

    Prompt sets take turns, and in each its groups, so that none is drowned by a larger one. Within a group, prompts are
    visited in a new random order each time all have been.
    """

    sets: tuple[tuple[tuple[Prompt, ...], ...], ...]  # sets of groups of prompts
    seed: int
    images: int  # N, over all prompts of an iteration
    prompts_per_step: int
    sampler_steps: tuple[int, ...]
    period: int  # iterations after which everything returns

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], prompts: Sequence[Prompt]) -> "TrainingPlan":
        """The plan of a plan spec over the training splits of its prompt sets.

        Raises:
            UserError: N images cannot be divided evenly among the prompts.
        """
        images, per_step = spec["images_per_step"], spec["prompts_per_step"]
        if images % per_step:
            raise UserError(
                f"images_per_step: {images} images cannot be divided evenly among prompts_per_step = {per_step}; "
                f"take {images - images % per_step} or {images + per_step - images % per_step} images"
            )
        sets = tuple(_partition(own, "group") for own in _partition(prompts, "set"))
        return cls(sets, spec["seed"], images, per_step, tuple(spec["sampler_steps"]), spec["iterations"])

    def iteration(self, k: int) -> Iteration:
        """What iteration k (from 0) renders."""
        slot = k % self.period
        each = self.images // self.prompts_per_step
        prompts, index, seeds = [], [], []
        for visit in range(slot * self.prompts_per_step, (slot + 1) * self.prompts_per_step):
            turn, which_set = divmod(visit, len(self.sets))
            turn, which_group = divmod(turn, len(self.sets[which_set]))
            group = self.sets[which_set][which_group]
            epoch, position = divmod(turn, len(group))
            number = sum(map(len, self.sets[:which_set])) + which_group
            prompt = group[self._order(number, len(group), epoch)[position]]
            prompts.append(prompt)
            for image in range(epoch * each, (epoch + 1) * each):
                index.append(image)
                seeds.append(stable_seed(self.seed, "train", prompt.id, image))
        steps = self.sampler_steps[stable_seed(self.seed, "sampler steps", slot) % len(self.sampler_steps)]
        prompt_index = tuple(p for p in range(self.prompts_per_step) for _ in range(each))
        return Iteration(slot, tuple(prompts), steps, prompt_index, tuple(index), tuple(seeds))

    def _order(self, group: int, prompts: int, epoch: int) -> np.ndarray:
        seed = stable_seed(self.seed, "prompt order", group, epoch)
        return np.random.default_rng(seed).permutation(prompts)


def _partition(prompts: Iterable[Prompt], key: str) -> tuple[tuple[Prompt, ...], ...]:
    """Prompts of equal `set` or `group` together, in order of first appearance."""
    parts: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        parts.setdefault(getattr(prompt, key), []).append(prompt)
    return tuple(map(tuple, parts.values()))
