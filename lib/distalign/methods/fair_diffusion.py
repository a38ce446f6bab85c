"""Fair Diffusion (Friedrich et al. 2023, arXiv 2302.10893): each image is edited towards a class drawn for it.

The edits are semantic guidance (SEGA, Brack et al. 2023, arXiv 2301.12247). Edit i has a text e_i, a sign d_i and the
scale s: δ_i = d_i s (ε_{e_i} - ε_∅), and each channel keeps its largest entries only. With momentum ν, of scale s_m,
Δ = Σ δ_i + s_m ν, then ν ← β ν + (1 - β) Δ; after the warm-up ε = ε_∅ + w (ε_c - ε_∅) + Δ.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor

from distalign.config.attributes import ATTRIBUTES
from distalign.diffusion.intervention import Batch, Intervention, Step
from distalign.methods.assignment import Cell, Target, assign, cells
from distalign.methods.world import World
from distalign.prompts import Prompt
from distalign.prompts.phrases import phrase
from distalign.store.seeds import stable_seed

Edit = tuple[float, str]  # sign, text


def edits(cell: Cell, remove: str) -> list[Edit]:
    """The edits of an image of this cell; their signs are the same for all cells.

    `together`: the cell is added, and a list of all cells that share no class with it removed: for two classes the
    authors' pair. `each`: per attribute the class is added, and every other class removed by an edit of its own.
    """
    others = {a: [name for name in ATTRIBUTES[a] if name != own] for a, own in cell.items()}
    if remove == "each":
        signed = [(a, [(1.0, own), *((-1.0, name) for name in others[a])]) for a, own in cell.items()]
        return [(sign, phrase({a: name})) for a, names in signed for sign, name in names]
    unlike = [phrase(dict(zip(cell, names, strict=True))) for names in product(*others.values())]
    return [(1.0, phrase(cell)), (-1.0, ", ".join(unlike))]


def keep_largest(delta: Tensor, threshold: float) -> Tensor:
    """Entries of (B, C, h, w) whose size is at least the quantile `threshold` of their image and channel, else 0."""
    sizes = delta.abs()
    limit = torch.quantile(sizes.float().flatten(2), threshold, dim=2)
    return torch.where(sizes >= limit[..., None, None], delta, 0)


class FairDiffusion(Intervention):
    """Branches: the texts of all edits. `known`: seeds of the concepts that are looked up; None: all are known."""

    def __init__(self, target: Target, settings: Mapping[str, Any], known: set[int] | None) -> None:
        self.target, self.settings, self.known = target, settings, known
        self.edits = [edits(cell, settings["remove"]) for cell in cells(target)]
        self.branches = tuple(dict.fromkeys(text for own in self.edits for _, text in own))

    def acts(self, batch: Batch) -> bool:
        """Whether any image is edited."""
        return any(self._knows(prompt) for prompt in batch.prompts)

    def score(self, step: Step) -> Tensor:
        """Guidance plus Δ (B, C, h, w); Δ is 0 for images of unknown concepts."""
        memory, settings = step.sampling.memory, self.settings
        if not memory:
            self._start(step)
        empty, own, *edited = step.evaluate(torch.stack([step.empty_rows, step.prompt_rows, *memory["rows"]]))
        delta = settings["momentum"] * memory["momentum"]
        for (sign, _), other in zip(self.edits[0], edited, strict=True):
            delta = delta + keep_largest(sign * settings["scale"] * (other - empty), settings["threshold"])
        memory["momentum"] = settings["beta"] * memory["momentum"] + (1 - settings["beta"]) * delta
        guided = empty + step.sampling.guidance * (own - empty)
        if step.number < round(settings["warmup"] * step.sampling.steps):
            return guided
        return torch.where(memory["known"], guided + delta, guided)

    def _start(self, step: Step) -> None:
        """Into memory: `rows` (m, B) of each image's m edits, `known` (B, 1, 1, 1), `momentum` (B, C, h, w)."""
        batch, device, memory = step.sampling.batch, step.latents.device, step.sampling.memory
        drawn = assign(self.target, batch, self.settings["assignment"])
        branch = [[self.branches.index(text) for _, text in self.edits[cell]] for cell in drawn]
        memory["rows"] = step.sampling.branch_index[torch.tensor(branch, device=device).T]
        known = [self._knows(prompt) for prompt in batch.prompts]
        memory["known"] = torch.tensor(known, device=device).view(-1, 1, 1, 1)
        memory["momentum"] = torch.zeros_like(step.latents)

    def _knows(self, prompt: Prompt) -> bool:
        return self.known is None or _seed(prompt) in self.known


def _seed(prompt: Prompt) -> int:
    """A concept as a number, so that the table of the known ones is a tensor."""
    return stable_seed("concept", prompt.concept)


def fit(world: World, settings: Mapping[str, Any], target: Target) -> dict[str, Tensor]:
    """The look-up table: `known` (N,), seeds of the concepts of the training prompts."""
    if settings["lookup"] == "all":
        return {}
    return {"known": torch.tensor(sorted({_seed(prompt) for prompt in world.train}), dtype=torch.int64)}


def apply(world: World, settings: Mapping[str, Any], target: Target, fitted: Mapping[str, Tensor]) -> Intervention:
    """The intervention."""
    return FairDiffusion(target, settings, None if settings["lookup"] == "all" else set(fitted["known"].tolist()))
