"""The three losses of finetuning (eqs. 6-8), each as one value per image; the loss is their mean over all N images."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def alignment_loss(logits: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    """Distributional alignment (eq. 6): cross-entropy (B,) to the target classes, summed over attributes.

    Args:
        logits: (B, K) of each attribute.
        targets: (B,) class indices of each attribute; -1 contributes nothing.
    """
    parts = [
        F.cross_entropy(logits[attribute], target, ignore_index=-1, reduction="none")
        for attribute, target in targets.items()
    ]
    return torch.stack(parts).sum(0)


def mean_alignment_loss(logits: Mapping[str, Tensor], slopes: Mapping[str, Tensor]) -> Tensor:
    """The part (B,) of each image in the divergence of a batch's mean from the target, summed over attributes.

    It is linear in the image's class probabilities, with `slopes` (B, K) that are known of the whole batch: see
    `targets.mean_slopes`.

    Args:
        logits: (B, K) of each attribute.
        slopes: (B, K) of each attribute.
    """
    parts = [(logits[attribute].softmax(1) * slope).sum(1) for attribute, slope in slopes.items()]
    return torch.stack(parts).sum(0)


def similarity_loss(features: Mapping[str, Tensor], originals: Mapping[str, Tensor]) -> Tensor:
    """Image preservation (eq. 7): the sum (B,) of 1 - cosine over encoders, of unit vectors (B, D)."""
    parts = [1 - (features[encoder] * originals[encoder]).sum(1) for encoder in originals]
    return torch.stack(parts).sum(0)


def face_loss(embeddings: Tensor, references: Tensor) -> Tensor:
    """Face realism (eq. 8): 1 - cosine (B,) of unit vectors (B, D)."""
    return 1 - (embeddings * references).sum(1)


def disagreement_factors(
    targets: Mapping[str, Tensor], original_classes: Mapping[str, Tensor], found: Tensor, factors: Mapping[str, float]
) -> Tensor:
    """Factor (B,) on the image loss: 1 where every target is the original's class, else the least of those that differ.

    A missing target (-1) differs: the face is free to change. An image without a face has no target at all and only
    this loss, which then counts in full, in every run (the released experiments disagree: full in 1, 2 and 6, reduced
    in 3 to 5).
    """
    result = torch.ones(len(found), device=found.device)
    for attribute, target in targets.items():
        differs = found & ((target == -1) | (target != original_classes[attribute]))
        result = torch.where(differs, result.clamp(max=factors[attribute]), result)
    return result


def intersect_boxes(first: Tensor, second: Tensor) -> Tensor:
    """Common part (B, 4) of boxes (B, 4); of no area where they do not overlap."""
    return torch.cat([torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])], dim=1)


def scale_gradient_in_boxes(images: Tensor, boxes: Tensor, factor: Tensor) -> Tensor:
    """The images (B, C, H, W) themselves, whose gradient is multiplied by `factor` (B,) inside the boxes (B, 4).

    A pixel is inside if its centre is. A box without area changes nothing.
    """
    result: Tensor = _ScaleGradient.apply(images, boxes, factor)
    return result


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, boxes: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(boxes, factor)
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        boxes, factor = ctx.saved_tensors
        height, width = gradient.shape[-2:]
        x1, y1, x2, y2 = (side[:, None] for side in boxes.unbind(1))
        columns = torch.arange(width, device=boxes.device) + 0.5
        rows = torch.arange(height, device=boxes.device) + 0.5
        inside = ((rows > y1) & (rows < y2))[:, :, None] & ((columns > x1) & (columns < x2))[:, None, :]
        scale = torch.where(inside, factor[:, None, None], 1.0).to(gradient.dtype)
        return gradient * scale[:, None], None, None
