"""Fair Diffusion (Friedrich et al. 2023): a class drawn for each image, and semantic guidance (SEGA) towards it.

Each edit i has a prompt e_i, a sign d_i and a scale s: δ_i = d_i s (ε_{e_i} - ε_∅), of which each channel keeps the
entries of largest size. Δ = Σ δ_i + s_m ν, ν ← β ν + (1 - β) Δ, and after the warm-up ε = ε_∅ + w (ε_c - ε_∅) + Δ.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from distalign.config.attributes import ATTRIBUTES
from distalign.diffusion.intervention import Batch, Intervention, Step
from distalign.methods.assignment import Target, assign, cells
from distalign.methods.world import World
from distalign.prompts.phrases import phrase


def fit(world: World, settings: Mapping[str, Any], target: Target) -> dict[str, Tensor]:
    """The look-up table: training concepts, as the bytes of their JSON."""
    concepts = sorted({prompt.concept for prompt in world.train})
    return {"known": torch.tensor(list(json.dumps(concepts).encode()), dtype=torch.uint8)}


class FairDiffusion(Intervention):
    """Per attribute two edits: towards the drawn class, and away from the others, said in one prompt."""

    def __init__(self, target: Target, settings: Mapping[str, Any], known: set[str]) -> None:
        self.target, self.settings, self.known = target, settings, known
        names = [(attribute, name) for attribute in ATTRIBUTES if attribute in target for name in ATTRIBUTES[attribute]]
        towards = {(a, name): phrase({a: name}) for a, name in names}
        away = {
            (a, name): ", ".join(phrase({a: other}) for other in ATTRIBUTES[a] if other != name) for a, name in names
        }
        self.branches = list(dict.fromkeys([*towards.values(), *away.values()]))
        self.edits = {key: (self.branches.index(towards[key]), self.branches.index(away[key])) for key in towards}

    def score(self, step: Step) -> Tensor:
        """Guidance plus Δ, for images whose concept is looked up in vain without."""
        memory, settings = step.sampling.memory, self.settings
        if not memory:
            memory["edited"] = self._edited(step.sampling.batch, step.latents.device)
            memory["rows"] = self._rows(step)
            memory["momentum"] = torch.zeros_like(step.latents)
        if not memory["edited"].any():
            return super().score(step)
        outputs = step.evaluate(torch.stack([step.empty_rows, step.prompt_rows, *memory["rows"]])).float()
        (empty, own), edits = outputs[:2], outputs[2:]
        signs = torch.tensor([1.0, -1.0], device=edits.device).repeat(len(edits) // 2).view(-1, 1, 1, 1, 1)
        deltas = keep_largest(signs * settings["scale"] * (edits - empty), settings["threshold"])
        delta = deltas.sum(dim=0) + settings["momentum"] * memory["momentum"]
        memory["momentum"] = settings["beta"] * memory["momentum"] + (1 - settings["beta"]) * delta
        guided = empty + step.sampling.guidance * (own - empty)
        if step.number < round(settings["warmup"] * step.sampling.steps):
            return guided
        return guided + torch.where(memory["edited"].view(-1, 1, 1, 1), delta, 0)

    def _edited(self, batch: Batch, device: torch.device) -> Tensor:
        everyone = self.settings["lookup"] == "all"
        return torch.tensor([everyone or prompt.concept in self.known for prompt in batch.prompts], device=device)

    def _rows(self, step: Step) -> Tensor:
        """(2 attributes, B): rows of the edits towards and away, for each attribute."""
        batch, kinds = step.sampling.batch, cells(self.target)
        drawn = [kinds[cell] for cell in assign(self.target, batch, self.settings["assignment"])]
        chosen = [[branch for a, name in cell.items() for branch in self.edits[a, name]] for cell in drawn]
        return step.sampling.branch_index[torch.tensor(chosen, device=step.latents.device)].T


def keep_largest(deltas: Tensor, threshold: float) -> Tensor:
    """Zero but where an entry's size reaches the quantile `threshold` of its channel: (n, B, C, h, w)."""
    sizes = deltas.abs()
    limit = torch.quantile(sizes.flatten(-2), threshold, dim=-1)[..., None, None]
    return torch.where(sizes >= limit, deltas, 0)


def apply(world: World, settings: Mapping[str, Any], target: Target, fitted: Mapping[str, Tensor]) -> Intervention:
    """The intervention."""
    return FairDiffusion(target, settings, set(json.loads(bytes(fitted["known"].tolist()))))
