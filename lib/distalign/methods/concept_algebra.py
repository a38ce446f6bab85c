"""Concept Algebra (Wang et al. 2023, arXiv 2302.03693): the score's part along the attribute is replaced.

At each step, the scores of texts that name the n cells span the attribute. With Q an orthonormal basis of their
main directions around their mean, ε_c ← ε_c + γ Q Qᵀ (ε_target - ε_c), then guidance. For two cells Q is one direction,
u = (ε_- - ε_+) / |ε_- - ε_+|, and with γ = 1 this is the authors' ε_c ← ε_c - <ε_c - ε_target, u> u.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from distalign.diffusion.intervention import Intervention, Step
from distalign.errors import UserError
from distalign.methods.assignment import Target, assign, cells
from distalign.methods.world import World
from distalign.prompts import fill
from distalign.prompts.phrases import phrase


class ConceptAlgebra(Intervention):
    """Branches: a text for each cell, then, for a neutral target, the text of a person of no said class."""

    def __init__(self, target: Target, settings: Mapping[str, Any]) -> None:
        self.target, self.settings, self.count = target, settings, len(cells(target))
        self.sampled = settings["target"] == "sampled"
        named = [*cells(target), *([] if self.sampled else [{}])]
        self.branches = tuple(fill(settings["concept_prompt"], phrase(classes)) for classes in named)

    def score(self, step: Step) -> Tensor:
        """Guidance (B, C, h, w) with the changed score of each image's prompt; early steps may be left as they are."""
        if self.settings["until"] < 1 and step.timestep > self.settings["until"] * _training_steps(step):
            return super().score(step)
        guidance = step.sampling.guidance
        rows = [step.prompt_rows, *(step.branch_rows(branch) for branch in range(len(self.branches)))]
        scores = step.evaluate(torch.stack(rows if guidance == 1 else [*rows, step.empty_rows]))
        own, named = scores[0], scores[1 : self.count + 1]
        wanted = (
            named[self._drawn(step), torch.arange(len(own), device=own.device)]
            if self.sampled
            else scores[self.count + 1]
        )
        own = own + self.settings["scale"] * project(wanted - own, named, self.settings["threshold"])
        return own if guidance == 1 else scores[-1] + guidance * (own - scores[-1])

    def _drawn(self, step: Step) -> Tensor:
        """(B,), the cell of each image; the same at all steps."""
        memory = step.sampling.memory
        if "drawn" not in memory:
            drawn = assign(self.target, step.sampling.batch, self.settings["assignment"])
            memory["drawn"] = torch.tensor(drawn, device=step.latents.device)
        result: Tensor = memory["drawn"]
        return result


def project(vectors: Tensor, named: Tensor, threshold: float) -> Tensor:
    """Q Qᵀ v for vectors v (B, ...), Q of each image from the scores `named` (n, B, ...) of its own latent.

    Q: the fewest leading left singular vectors of the centred scores A (d, n) that hold more than `threshold` of the
    variance, at most n - 1. With V and λ the leading eigenvectors and eigenvalues of AᵀA (n, n), of each image by
    itself, Q Qᵀ v = A V λ⁻¹ Vᵀ Aᵀ v.
    """
    a = named.double()
    a = (a - a.mean(dim=0)).flatten(2).transpose(0, 1)  # (B, n, d)
    values, basis = torch.linalg.eigh(a @ a.transpose(1, 2))
    values, basis = values.flip(1).clamp(min=0), basis.flip(2)  # largest first
    before = values.cumsum(1) - values
    kept = (before <= threshold * values.sum(1, keepdim=True)) & (values > 1e-12 * values[:, :1])
    kept[:, -1] = False  # centred: the last has no variance but rounding
    inverse = torch.where(kept, 1 / values, 0)
    coefficients = basis.transpose(1, 2) @ (a @ vectors.double().flatten(1)[..., None])
    result = a.transpose(1, 2) @ (basis @ (inverse[..., None] * coefficients))
    return result.view_as(vectors).to(vectors.dtype)


def _training_steps(step: Step) -> int:
    return int(step.sampling.pipeline.scheduler_config.get("num_train_timesteps", 1000))


def apply(world: World, settings: Mapping[str, Any], target: Target, fitted: Mapping[str, Tensor]) -> Intervention:
    """The intervention; nothing is fitted.

    Raises:
        UserError: the neutral target cannot be given other shares than equal ones.
    """
    uneven = any(len(set(shares.values())) > 1 for shares in target.values())
    if settings["target"] == "neutral" and uneven:
        raise UserError("concept_algebra with target: neutral has no shares to set; align to uniform or take sampled")
    return ConceptAlgebra(target, settings)
