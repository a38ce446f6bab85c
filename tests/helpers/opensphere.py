"""Checkpoints of OpenSphere: the names of its releases and of its parallel wrapper, at reduced width."""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

WIDTHS, EMBEDDING = [4, 6, 8, 10], 12
# What sfnet20_deprecated of OpenSphere names its tensors: units per stage, two convolutions in each.
UNITS = (1, 2, 4, 1)


def names(strided: str = "conv") -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a narrow SFNet-20."""
    shapes: dict[str, tuple[int, ...]] = {}
    inputs = 3
    for stage, (width, units) in enumerate(zip(WIDTHS, UNITS, strict=True), 1):
        shapes |= {
            f"layer{stage}.0.{strided}.weight": (width, inputs, 3, 3),
            f"layer{stage}.0.{strided}.bias": (width,),
        }
        for unit in range(1, units + 1):
            for conv in ("conv1", "conv2"):
                shapes |= {f"layer{stage}.{unit}.{conv}.weight": (width, width, 3, 3)}
                shapes |= {f"layer{stage}.{unit}.{conv}.bias": (width,)}
        inputs = width
    return shapes | {"fc.weight": (EMBEDDING, inputs * 7 * 7), "fc.bias": (EMBEDDING,)}


def state(strided: str = "conv", prefix: str = "module.") -> "OrderedDict[str, Tensor]":
    torch.manual_seed(0)
    return OrderedDict((prefix + name, torch.randn(shape) * 0.1) for name, shape in names(strided).items())


def net(kind: str = "sfnet20_deprecated", **changes: Any) -> dict[str, Any]:
    return {"type": kind, "in_channel": 3, "channels": WIDTHS, "out_channel": EMBEDDING} | changes
