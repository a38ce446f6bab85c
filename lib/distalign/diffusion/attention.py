"""Cross-attention whose keys and values are computed once per prompt, not at every step of every image.

They depend on the text states and on weights alone, and neither changes while images are sampled, nor while the
gradient of an iteration is added up. There each micro-batch leaves its gradient at the keys and values; in the end,
one pass takes their sum on to the text states, and to a LoRA on the projections.

It is on where a GPU computes (`load_pipeline`). On a CPU the gain is small, and other shapes of the same products
would round otherwise than results there have been so far.
"""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn

from distalign.diffusion.half import follow_input

if TYPE_CHECKING:
    from distalign.diffusion.pipeline import Pipeline
    from distalign.diffusion.text import TextConditioning

Kept = dict[str, Tensor]  # "rows" (n,) of a call of the U-Net, and keys or values (R, L, inner) by projection
PROJECTIONS = ("to_k", "to_v")
_ELSE = ("norm_cross", "norm_q", "norm_k", "spatial_norm", "group_norm")  # attention of other models than these


class PromptAttention:
    """torch's fused attention as diffusers calls it; keys and values are taken from `kept` if they are there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.plain = AttnProcessor2_0()

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        kept: Kept | None = None,
    ) -> Tensor:
        """Attention's output (n, T, C) for hidden states (n, T, C)."""
        if kept is None or f"{self.name}.to_k" not in kept:
            output: Tensor = self.plain(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
            return output
        query = attn.to_q(hidden_states)
        # Gathered first, so that gradients are summed over images in the precision of what is kept.
        key, value = (kept[f"{self.name}.{kind}"][kept["rows"]].to(query.dtype) for kind in PROJECTIONS)
        mask = None if attention_mask is None else attention_mask[:, None].to(query.dtype)
        query, key, value = (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in (query, key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        dense, dropout = attn.to_out
        return dropout(dense(mixed.transpose(1, 2).flatten(2))) / attn.rescale_output_factor


def keep_keys(unet: nn.Module) -> None:
    """Let a U-Net take kept keys and values, and compute all attention by torch's fused kernels."""
    for name, module in unet.named_modules():
        if isinstance(module, Attention):
            processor: Any = PromptAttention(name)
            module.set_processor(processor)
    for layer in _projections(unet).values():
        follow_input(layer)


def _projections(unet: nn.Module) -> dict[str, Any]:
    """The projections to keys and values of every cross-attention."""
    return {
        f"{name}.{kind}": getattr(module, kind)
        for name, module in unet.named_modules()
        if name.endswith("attn2") and all(getattr(module, other, None) is None for other in _ELSE)
        for kind in PROJECTIONS
    }


class PromptKeys:
    """Keys and values of every cross-attention for the rows of a conditioning: its G empty prompts, then its P prompts.

    They are computed with the weights of now, in the precision of the text states, and with a graph where gradients
    are enabled and something is trained.
    """

    def __init__(self, pipeline: "Pipeline", conditioning: "TextConditioning") -> None:
        self.conditioning = conditioning
        states = torch.cat([conditioning.unconditional, conditioning.embeddings])
        self._outputs = {name: layer(states) for name, layer in _projections(pipeline.unet).items()}
        self._leaves: Kept = {}
        for name, output in self._outputs.items():
            leaf = output.detach()
            self._leaves[name] = leaf.requires_grad_() if output.requires_grad else leaf.to(pipeline.computes_in)

    def batch(self, prompt_index: Tensor) -> Kept:
        """For the guidance batch of images of these prompts (B,), empty prompts first."""
        return self.take(torch.cat([self.empty(prompt_index), self.own(prompt_index)]))

    def take(self, rows: Tensor) -> Kept:
        """For a call of the U-Net with these rows (n,), as `empty` and `own` give them."""
        return {"rows": rows, **self._leaves}

    def empty(self, prompt_index: Tensor) -> Tensor:
        """Rows of the empty prompt, padded as these prompts are."""
        return self.conditioning.unconditional_index[prompt_index]

    def own(self, prompt_index: Tensor) -> Tensor:
        """Rows of these prompts."""
        return len(self.conditioning.unconditional) + prompt_index

    def backward(self) -> None:
        """Take the gradients collected so far on to the text states and to trained projections, once."""
        used = [(self._outputs[name], leaf.grad) for name, leaf in self._leaves.items() if leaf.grad is not None]
        if used:
            torch.autograd.backward([output for output, _ in used], [gradient for _, gradient in used])
        self._outputs.clear()
        self._leaves.clear()


def prompt_keys(pipeline: "Pipeline", conditioning: "TextConditioning") -> PromptKeys | None:
    """Keys and values of a conditioning; None where the pipeline keeps none."""
    return PromptKeys(pipeline, conditioning) if pipeline.keeps_keys else None
