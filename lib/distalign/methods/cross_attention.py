"""Closed-form edits of the weights that read the prompt: keys and values of the U-Net's cross-attention.

An edit asks that some token states c get other values v* than W c, that others keep theirs, and that W changes little
(Orgad et al. 2023, arXiv 2303.08084, eq. 4; Gandikota et al. 2023, arXiv 2308.14761, eq. 7):

    minimise  sum_i s_i |W' c_i - v*_i|^2 + lambda |W' - W|^2
    W' = (lambda W + sum_i s_i v*_i c_i^T) (lambda I + sum_i s_i c_i c_i^T)^-1

Edits start from the model's own weights and are solved in float64.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from distalign.diffusion.intervention import Intervention, Sampling
from distalign.diffusion.pipeline import Pipeline
from distalign.diffusion.text import encode_prompts

LAYERS = ("attn2.to_k.weight", "attn2.to_v.weight")  # as diffusers names them; attn1 is self-attention


def layers(pipeline: Pipeline) -> dict[str, nn.Parameter]:
    """The weights (out, D) of every cross-attention's keys and values, by their names in the U-Net."""
    return {name: weight for name, weight in pipeline.unet.named_parameters() if name.endswith(LAYERS)}


@torch.no_grad()
def edit(
    weights: Mapping[str, Tensor],
    states: Tensor,
    scales: Tensor,
    strength: float,
    change: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """New weights by name, the closed form above, in the dtype of the old ones.

    Args:
        weights: (out, D) each.
        states: (n, D), the c_i.
        scales: (n,), the s_i.
        strength: lambda, above 0.
        change: W (out, D) float64 to v*_i - W c_i (m, out) of the first m states; those of the others are 0.
    """
    states, scales = states.double(), scales.double()
    gram = strength * torch.eye(states.shape[1], dtype=states.dtype, device=states.device)
    gram += states.T @ (scales[:, None] * states)
    # (lambda I + sum s c c^T)^-1 s_i c_i of every state: the same for all layers.
    gains = torch.linalg.solve(gram, (scales[:, None] * states).T).T
    result = {}
    for name, weight in weights.items():
        own = weight.detach().double()
        changes = change(own)
        result[name] = (own + changes.T @ gains[: len(changes)]).to(weight.dtype)
    return result


class EditedWeights(Intervention):
    """Samples with other weights, by their names in the U-Net; otherwise the model stays as it is."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = weights

    @contextlib.contextmanager
    def activations(self, sampling: Sampling) -> Iterator[None]:
        """Put the new weights in the place of the old while a batch is sampled."""
        held = layers(sampling.pipeline)
        own = {name: held[name].data for name in self.weights}
        try:
            for name, weight in self.weights.items():
                held[name].data = weight.to(own[name])
            yield
        finally:
            for name, weight in own.items():
                held[name].data = weight


def token_ids(pipeline: Pipeline, text: str) -> list[int]:
    """Ids of a text's tokens with start and end, cut to the model's length."""
    ids: list[int] = pipeline.tokenizer(text, truncation=True, max_length=pipeline.tokenizer.model_max_length)[
        "input_ids"
    ]
    return ids


@torch.no_grad()
def token_states(pipeline: Pipeline, texts: Sequence[str]) -> list[Tensor]:
    """States (L, D) float64 of each text's tokens, with start and end but without padding.

    A token only sees those before it, so these are the same under every padding.
    """
    states = encode_prompts(pipeline, texts, "longest").embeddings.double()
    return [own[: len(token_ids(pipeline, text))] for own, text in zip(states, texts, strict=True)]
