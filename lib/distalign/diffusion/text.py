"""Prompts to text embeddings, with the empty prompt of classifier-free guidance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from distalign.diffusion.pipeline import Pipeline
from distalign.errors import UserError

Padding = Literal["longest", "max_length"]


@dataclass
class TextConditioning:
    """Embeddings of P prompts and of the empty prompt, shared by all images of a prompt.

    Attributes:
        embeddings: (P, L, D).
        unconditional: (G, L, D), the empty prompt padded to each of G lengths.
        unconditional_index: (P,), the row of `unconditional` that goes with a prompt.
        mask: (P, L), True where the U-Net may attend; None when every position of every prompt counts.
    """

    embeddings: Tensor
    unconditional: Tensor
    unconditional_index: Tensor
    mask: Tensor | None

    def batch(self, prompt_index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Guidance batch for images of these prompts: ((2B, L, D), (2B, L) or None), empty prompt first."""
        empty = self.unconditional[self.unconditional_index[prompt_index]]
        states = torch.cat([empty, self.embeddings[prompt_index]])
        return states, None if self.mask is None else self.mask[prompt_index].repeat(2, 1)

    def leaf(self) -> "TextConditioning":
        """A detached copy whose embeddings collect gradients, if the text encoder is trained."""
        trained = self.embeddings.requires_grad
        return TextConditioning(
            self.embeddings.detach().requires_grad_(trained),
            self.unconditional.detach().requires_grad_(trained),
            self.unconditional_index,
            self.mask,
        )

    def collect(self, prompt_index: Tensor, gradient: Tensor) -> None:
        """Add the gradient (2B, L, D) of a guidance batch to this leaf's embeddings."""
        states, _ = self.batch(prompt_index)
        states.backward(gradient)

    def backward(self, leaf: "TextConditioning") -> None:
        """Send the gradients collected by `leaf` through the text encoder, once."""
        pairs = [(self.embeddings, leaf.embeddings.grad), (self.unconditional, leaf.unconditional.grad)]
        used = [(output, gradient) for output, gradient in pairs if gradient is not None]
        if used:
            torch.autograd.backward([output for output, _ in used], [gradient for _, gradient in used])


def encode_prompts(pipeline: Pipeline, texts: Sequence[str], padding: Padding = "longest") -> TextConditioning:
    """Encode prompts and the empty prompt in one call of the text encoder.

    `max_length` pads everything to the tokenizer's length and masks nothing, as diffusers' pipelines do.
    `longest` is the regime of the paper's released code, in which every batch is one prompt: no padding, and the
    empty prompt padded to the prompt's length with padding masked in the text encoder. Here that is done for each
    prompt by itself and the U-Net never sees another prompt's padding, so an image does not depend on its batch.
    """
    rows = [_token_ids(pipeline, text, pipeline.prefix_ids) for text in texts]
    empty = _token_ids(pipeline, "", [])
    if padding == "max_length":
        lengths = [pipeline.tokenizer.model_max_length] * len(rows)
    else:
        lengths = [len(row) for row in rows]
    groups = sorted(set(lengths))
    longest = groups[-1]
    pad = pipeline.tokenizer.pad_token_id
    device = pipeline.device
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows + [empty] * len(groups)], device=device)
    attention = None
    if padding == "longest":
        real = torch.tensor([len(row) for row in rows] + [len(empty)] * len(groups), device=device)
        attention = (torch.arange(longest, device=device) < real[:, None]).long()
    states = pipeline.text_encoder(input_ids=ids, attention_mask=attention).last_hidden_state
    mask = None
    if len(groups) > 1:
        mask = torch.arange(longest, device=device) < torch.tensor(lengths, device=device)[:, None]
    index = torch.tensor([groups.index(length) for length in lengths], device=device)
    return TextConditioning(states[: len(rows)], states[len(rows) :], index, mask)


def end_positions(pipeline: Pipeline, texts: Sequence[str]) -> Tensor:
    """(B,), where in `encode_prompts(pipeline, texts).embeddings` the end of each text is."""
    lengths = [len(_token_ids(pipeline, text, pipeline.prefix_ids)) for text in texts]
    return torch.tensor(lengths, device=pipeline.device) - 1


def _token_ids(pipeline: Pipeline, text: str, prefix: list[int]) -> list[int]:
    """Token ids with start and end, the prefix after the start, cut to the model's length.

    Raises:
        UserError: without the prefix the text would fit.
    """
    length = pipeline.tokenizer.model_max_length
    ids = pipeline.tokenizer(text, truncation=True, max_length=length)["input_ids"]
    if len(ids) < length < len(ids) + len(prefix):
        raise UserError(
            f"prefix_tokens: after {len(prefix)} of them no room is left for {text!r}, {len(ids)} tokens of the "
            f"{length} that the text encoder reads; set it to {length - len(ids)} at most."
        )
    start, *rest = pipeline.tokenizer(text, truncation=True, max_length=length - len(prefix))["input_ids"]
    return [start, *prefix, *rest]
