"""Concept Algebra (Wang et al. 2023): the score loses its part along the attribute and gets that of a target instead.

The scores of prompts that name the cells span the attribute at the present latent. With Q an orthonormal basis of the
leading directions of these scores around their mean, ε_c ← ε_c + γ Q Q^T (ε_target - ε_c). For two cells Q is their
normalised difference. Everything is done for each image by itself: the authors' code takes norms and inner products
over the whole batch, which is right for a batch of one.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from distalign.diffusion.intervention import Intervention, Step
from distalign.methods.assignment import Target, assign, cells
from distalign.methods.world import World
from distalign.prompts.phrases import phrase, with_article

TRAINING_STEPS = 1000


class ConceptAlgebra(Intervention):
    """Branches are the cells, and last, for a neutral target, nobody in particular."""

    def __init__(self, target: Target, settings: Mapping[str, Any]) -> None:
        self.target, self.settings = target, settings
        self.number = len(cells(target))
        self.sampled = settings["target"] == "sampled"
        classes = [*cells(target), *([] if self.sampled else [{}])]
        self.branches = [with_article(phrase(own)) for own in classes]

    def score(self, step: Step) -> Tensor:
        """Guidance with the changed score of the prompt."""
        if step.timestep > TRAINING_STEPS * self.settings["until"]:
            return super().score(step)
        guidance, images = step.sampling.guidance, len(step.latents)
        branches = [step.branch_rows(k) for k in range(len(self.branches))]
        empty = [] if guidance == 1 else [step.empty_rows]
        outputs = step.evaluate(torch.stack([step.prompt_rows, *branches, *empty])).float()
        own, spanning = outputs[0], outputs[1 : 1 + self.number]
        goal = outputs[1 + self.number] if not self.sampled else spanning[self._drawn(step), torch.arange(images)]
        moved = own + self.settings["scale"] * project(spanning, goal - own, self.settings["threshold"])
        return moved if guidance == 1 else outputs[-1] + guidance * (moved - outputs[-1])

    def _drawn(self, step: Step) -> Tensor:
        memory = step.sampling.memory
        if "drawn" not in memory:
            drawn = assign(self.target, step.sampling.batch, self.settings["assignment"])
            memory["drawn"] = torch.tensor(drawn, device=step.latents.device)
        cell: Tensor = memory["drawn"]
        return cell


def project(spanning: Tensor, vectors: Tensor, threshold: float) -> Tensor:
    """Q Q^T of vectors (B, ...) per image, Q the leading directions of scores (n, B, ...) around their mean.

    So many directions are taken that they hold at least the share `threshold` of the variance.
    """
    n, images = spanning.shape[:2]
    centred = (spanning - spanning.mean(dim=0)).reshape(n, images, -1).transpose(0, 1).double()
    flat = vectors.reshape(images, -1, 1).double()
    variance, directions = torch.linalg.eigh(centred @ centred.transpose(1, 2))  # of the Gram matrix, ascending
    variance, directions = variance.flip(1).clamp(min=0), directions.flip(2)
    before = variance.cumsum(1) - variance
    used = (before < threshold * variance.sum(1, keepdim=True)) & (variance > 1e-12 * variance[:, :1])
    inverse = torch.where(used, 1 / variance, 0).unsqueeze(2)
    coefficients = directions @ (inverse * (directions.transpose(1, 2) @ (centred @ flat)))
    return (centred.transpose(1, 2) @ coefficients).reshape(vectors.shape).to(vectors.dtype)


def apply(world: World, settings: Mapping[str, Any], target: Target, fitted: Mapping[str, Tensor]) -> Intervention:
    """The intervention; nothing is fitted."""
    return ConceptAlgebra(target, settings)
