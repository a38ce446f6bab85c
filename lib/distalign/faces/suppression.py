"""Non-maximum suppression of many images at once."""

from typing import Literal

import torch
from torch import Tensor

CHUNK_PAIRS = 2**23


def suppress(
    boxes: Tensor, scores: Tensor, group: Tensor, threshold: float, method: Literal["union", "min"] = "union"
) -> Tensor:
    """Indices of the boxes that no better box of the same group overlaps, groups ascending, best score first.

    A box falls to any better box, even one that falls itself: the rule of the `mtcnn` package (not the greedy one).

    Args:
        boxes: (n, 4) x1, y1, x2, y2.
        scores: (n,); of equal scores the first box is better.
        group: (n,) non-negative group of each box.
        threshold: Largest overlap that is let pass, in [0, 1].
        method: Overlap is the intersection over the area of the union, or over the smaller area.
    """
    order = scores.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    if len(order) < 2:
        return order
    _, counts = torch.unique_consecutive(group[order], return_counts=True)
    groups, most = len(counts), int(counts.max())
    owner = torch.repeat_interleave(torch.arange(groups, device=boxes.device), counts)
    slot = torch.arange(len(order), device=boxes.device) - (counts.cumsum(0) - counts)[owner]
    padded = boxes.new_zeros(groups, most, 4)
    padded[owner, slot] = boxes[order]
    chunk = max(1, CHUNK_PAIRS // most**2)
    dropped = torch.cat([_dropped(part, threshold, method) for part in padded.split(chunk)])
    return order[~dropped[owner, slot]]


def _dropped(boxes: Tensor, threshold: float, method: Literal["union", "min"]) -> Tensor:
    """(G, m) whether an earlier one of boxes (G, m, 4) overlaps; padding boxes are empty and overlap nothing."""
    first, second = boxes[:, :, None], boxes[:, None, :]
    sides = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    intersection = sides.clamp(min=0).prod(-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    if method == "union":
        base = area[:, :, None] + area[:, None, :] - intersection
    else:
        base = torch.minimum(area[:, :, None], area[:, None, :])
    return ((intersection / base) > threshold).triu(1).any(1)  # 0 / 0 compares as false
