"""debiasVL (Chuang et al. 2023): a linear map of the text embeddings that shrinks the directions of the attributes.

P minimises ||P - I||^2 + λ/|S| Σ ||P z_a - P z_b||^2 over pairs of prompts that differ in the classes they name:
P = (I + λ M)^-1 with M = 1/|S| Σ (z_a - z_b)(z_a - z_b)^T, z the normalised state at the end of the prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from distalign.diffusion.intervention import Intervention
from distalign.diffusion.pipeline import Pipeline
from distalign.diffusion.text import Padding, TextConditioning, encode_prompts, end_positions
from distalign.methods.assignment import Target, cells
from distalign.methods.world import World
from distalign.prompts import spread
from distalign.prompts.phrases import say


def fit(world: World, settings: Mapping[str, Any], target: Target) -> dict[str, Tensor]:
    """`projection` (D, D), from the pairs of cells said before each of some training concepts."""
    differences = []
    for prompt in spread(world.train, settings["concepts"]):
        ends = end_states(world.pipeline, [say(prompt, cell).text for cell in cells(target)], world.padding)
        differences += [ends[a] - ends[b] for a, b in combinations(range(len(ends)), 2)]
    return {"projection": projection(torch.stack(differences), settings["strength"]).float()}


def projection(differences: Tensor, strength: float) -> Tensor:
    """P (D, D) float64 of differences (S, D)."""
    moments = differences.T @ differences / len(differences)
    return torch.linalg.inv(torch.eye(len(moments), dtype=moments.dtype, device=moments.device) + strength * moments)


@torch.no_grad()
def end_states(pipeline: Pipeline, texts: Sequence[str], padding: Padding) -> Tensor:
    """The text encoder's last states (B, D) at the end of each prompt, as float64 unit vectors."""
    states = encode_prompts(pipeline, texts, padding).embeddings.double()
    ends = states[torch.arange(len(states), device=states.device), end_positions(pipeline, texts)]
    return torch.nn.functional.normalize(ends, dim=1)


class Projected(Intervention):
    """Every token of every prompt is mapped; the empty prompt is not."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def embed(self, conditioning: TextConditioning) -> TextConditioning:
        """E P^T."""
        mapped = conditioning.embeddings.float() @ self.matrix.T
        return replace(conditioning, embeddings=mapped.to(conditioning.embeddings.dtype))


def apply(world: World, settings: Mapping[str, Any], target: Target, fitted: Mapping[str, Tensor]) -> Intervention:
    """The intervention."""
    return Projected(fitted["projection"])
