"""Which part of a model is in half precision, and adapters in float32 on layers that are."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

HALF = (torch.float16, torch.bfloat16)


def text_precision(dtype: torch.dtype) -> torch.dtype:
    """Of the text encoder of a model in this precision: never half.

    It runs once per prompt, so it costs nothing, and what it makes of a prompt is all that the adapters on it change.
    """
    return torch.float32 if dtype in HALF else dtype


def follow_inputs(module: nn.Module) -> None:
    """Let the linear layers with a LoRA, and the LoRA, compute in the precision of what they are given.

    Weights stay as they are, so that the LoRA is trained in float32. PEFT by itself would bring activations to the
    LoRA's precision, and keep them for the backward pass, once more and twice as large.
    """
    for layer in module.modules():
        if isinstance(layer, BaseTunerLayer):
            lora: Any = layer
            lora.cast_input_dtype_enabled = False
            for linear in layer.modules():
                if isinstance(linear, nn.Linear):
                    follow_input(linear)


def follow_input(linear: nn.Linear) -> None:
    """Let a linear layer compute in the precision of its input."""
    linear.forward = partial(_linear, linear)  # type: ignore[method-assign]


def _linear(layer: nn.Linear, inputs: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.to(inputs.dtype)
    return F.linear(inputs, layer.weight.to(inputs.dtype), bias)
