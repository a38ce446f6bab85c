"""UCE, unified concept editing (Gandikota et al. 2023, arXiv 2308.14761), in its form for debiasing.

Each concept's keys and values get something of every class's, as much as rounds of images say:

    v* = W c + sum_a w_a |W c| W c_a / |W c_a|,    w_a <- w_a + step (desired_a - measured_a)

c: the state of the concept's last token in its prompt, c_a: of the same token in the prompt that says class a (cell a,
where several attributes are aligned). Every edit starts from the model's own weights.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distalign.diffusion.intervention import Intervention
from distalign.diffusion.pipeline import Pipeline
from distalign.methods.assignment import Target, cell_shares, cells
from distalign.methods.cross_attention import EditedWeights, edit, layers, token_ids, token_states
from distalign.methods.world import World
from distalign.prompts import Prompt, spread
from distalign.prompts.phrases import say

log = logging.getLogger(__name__)


class Edits:
    """The edits of P concepts on one model, any number of times, always from the model's own weights.

    Attributes:
        sources: (n, D) float64, states of the edited tokens, concept by concept.
        guides: (n, K, D), of the same tokens in the prompts that say each cell.
        owner: (n,), the concept of each token.
    """

    def __init__(
        self, pipeline: Pipeline, prompts: Sequence[Prompt], target: Target, settings: Mapping[str, Any]
    ) -> None:
        self.weights, self.settings = layers(pipeline), settings
        sources, guides, owner = [], [], []
        for p, prompt in enumerate(prompts):
            texts = [prompt.text, *(say(prompt, cell).text for cell in cells(target))]
            own, *others = token_states(pipeline, texts)
            # The words of a class stand before the concept: its distance from the end stays.
            first = last_token(pipeline, prompt) - len(own)
            for place in range(first, first + 1 if settings["tokens"] == "last" else 0):
                sources.append(own[place])
                guides.append(torch.stack([states[place] for states in others]))
                owner.append(p)
        self.sources, self.guides = torch.stack(sources), torch.stack(guides)
        self.owner = torch.tensor(owner, device=self.sources.device)
        (self.kept,) = token_states(pipeline, [""])

    def weighted(self, weights: np.ndarray) -> dict[str, Tensor]:
        """The model's weights by layer, edited with w (P, K) of the concepts."""
        w = torch.as_tensor(weights, dtype=torch.float64, device=self.sources.device)[self.owner]

        def change(weight: Tensor) -> Tensor:
            present = self.sources @ weight.T
            # One class at a time: all of them at once would be large.
            towards = torch.zeros_like(present)
            for k in range(w.shape[1]):
                towards += w[:, k, None] * torch.nn.functional.normalize(self.guides[:, k] @ weight.T, dim=1)
            return present.norm(dim=1, keepdim=True) * towards

        scales = [self.settings["erase_scale"]] * len(self.sources) + [self.settings["preserve_scale"]] * len(self.kept)
        states = torch.cat([self.sources, self.kept])
        return edit(self.weights, states, states.new_tensor(scales), self.settings["strength"], change)


def last_token(pipeline: Pipeline, prompt: Prompt) -> int:
    """Place of the last token of a prompt's concept among its tokens; of the text's, if it does not name the concept.

    Tokens do not reach over the ends of words, so the text up to there has one token less behind it: the end.
    """
    found = re.search(rf"\b{re.escape(prompt.concept)}\b", prompt.text, re.IGNORECASE)
    return len(token_ids(pipeline, prompt.text[: found.end()] if found else prompt.text)) - 2


def fit(world: World, settings: Mapping[str, Any], target: Target) -> dict[str, Tensor]:
    """The edited weights by layer.

    A round makes images of every concept and moves its w, but not while it is within `tolerance` of the target in all
    cells, or shows no face. It is looked at again, as the edits of others move it too.
    """
    prompts = spread(world.train, settings.get("concepts"))
    edits, wanted = Edits(world.pipeline, prompts, target, settings), cell_shares(target)
    weights = np.zeros((len(prompts), len(wanted)))
    edited = edits.weighted(weights)
    for number in range(settings["rounds"]):
        lacking = np.nan_to_num(wanted - world.measure(EditedWeights(edited), prompts, target).shares())
        lacking[np.abs(lacking).max(axis=1) < settings["tolerance"]] = 0
        log.info("round %d: %d of %d concepts to move", number, np.count_nonzero(lacking.any(axis=1)), len(prompts))
        if not lacking.any():
            break
        weights += settings["step"] * lacking
        edited = edits.weighted(weights)
    return edited


def apply(world: World, settings: Mapping[str, Any], target: Target, fitted: Mapping[str, Tensor]) -> Intervention:
    """The intervention."""
    return EditedWeights(fitted)
