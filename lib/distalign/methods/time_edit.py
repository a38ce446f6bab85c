"""TIME, editing implicit assumptions (Orgad et al. 2023, arXiv 2303.08084), of all concepts in one edit.

Each token c_i of a prompt (`a doctor`) gets the keys and values of the same token in the prompt with the words of what
the model shows too rarely (`a female doctor`):

    W' = (lambda W + sum_i v*_i c_i^T) (lambda I + sum_i c_i c_i^T)^-1,    v*_i = W sum_a u_a c_{a,i} / sum_a u_a

u_a = max(target_a - measured_a, 0) over the cells of the aligned attributes, measured on the model as it is: with two
classes v* is of the rarer one, as in the paper. The target says where to, lambda how far.
"""

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distalign.diffusion.intervention import Intervention
from distalign.diffusion.pipeline import Pipeline
from distalign.methods.assignment import Target, cell_shares, cells
from distalign.methods.cross_attention import EditedWeights, edit, layers, token_ids, token_states
from distalign.methods.world import World
from distalign.prompts import spread
from distalign.prompts.phrases import say


def align(source: Sequence[int], destination: Sequence[int]) -> list[int]:
    """For each token of `source` the place of its counterpart in `destination`, in order; -1 without one."""
    places = [-1] * len(source)
    for block in SequenceMatcher(None, source, destination, autojunk=False).get_matching_blocks():
        places[block.a : block.a + block.size] = range(block.b, block.b + block.size)
    return places


def _comparable(pipeline: Pipeline, text: str) -> list[int]:
    """Token ids of a text with `an` as `a`: the article is the same token, though a class's word may change it."""
    a, an = (token_ids(pipeline, word)[1:-1] for word in ("a", "an"))
    ids = token_ids(pipeline, text)
    return [a[0] if [token] == an else token for token in ids]


def fit(world: World, settings: Mapping[str, Any], target: Target) -> dict[str, Tensor]:
    """The edited weights by layer. A concept without a face, or that has the target's shares, is not edited."""
    pipeline, kinds = world.pipeline, cells(target)
    prompts = spread(world.train, settings.get("concepts"))
    shares = world.measure(Intervention(), prompts, target).shares()
    lacking = np.nan_to_num(cell_shares(target) - shares).round(9).clip(min=0)  # a rounding error lacks nothing
    sources, destinations = [], []
    for prompt, u in zip(prompts, lacking, strict=True):
        rare = np.flatnonzero(u)
        if not len(rare):
            continue
        texts = [prompt.text, *(say(prompt, kinds[k]).text for k in rare)]
        own, *others = token_states(pipeline, texts)
        ids, *other_ids = [_comparable(pipeline, text) for text in texts]
        places = torch.tensor([align(ids, there) for there in other_ids], device=own.device)
        # All tokens have a counterpart, unless the longer text was cut.
        found = (places >= 0).all(dim=0)
        sources.append(own[found])
        counterparts = torch.stack([other[row[found]] for other, row in zip(others, places, strict=True)])
        destinations.append(torch.einsum("k,kld->ld", own.new_tensor(u[rare] / u.sum()), counterparts))
    weights = layers(pipeline)
    if not sources:
        return {name: weight.detach().clone() for name, weight in weights.items()}
    states = torch.cat(sources)
    difference = torch.cat(destinations) - states
    return edit(weights, states, torch.ones_like(states[:, 0]), settings["strength"], lambda w: difference @ w.T)


def apply(world: World, settings: Mapping[str, Any], target: Target, fitted: Mapping[str, Tensor]) -> Intervention:
    """The intervention."""
    return EditedWeights(fitted)
