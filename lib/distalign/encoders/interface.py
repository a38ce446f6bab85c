"""What every image encoder offers, and the image preprocessing they share."""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class ImageEncoder(Protocol):
    """Images in, unit vectors out; differentiable with respect to the images."""

    def encode_images(self, images: Tensor) -> Tensor:
        """Unit vectors (B, D) float32 of images (B, 3, H, W) in [-1, 1]."""
        ...


class TextEncoder(Protocol):
    """Texts in, unit vectors out, in the space of an image encoder."""

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (B, D) float32 of texts."""
        ...


class Preprocess:
    """Bilinear resize to a square, then the normalisation an encoder was trained with.

    Args:
        size: Side the encoder reads, in pixels.
        mean: Per channel, of images in [0, 1].
        std: Per channel, of images in [0, 1].
        antialias: Low-pass before shrinking (the paper's code does not).
    """

    def __init__(self, size: int, mean: Sequence[float], std: Sequence[float], antialias: bool) -> None:
        self.size = size
        self.mean = torch.tensor(mean).view(3, 1, 1)
        self.std = torch.tensor(std).view(3, 1, 1)
        self.antialias = antialias

    def to(self, device: torch.device | str) -> None:
        """Move the constants to a device."""
        self.mean, self.std = self.mean.to(device), self.std.to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [-1, 1] to normalised (B, 3, size, size)."""
        if images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(
                images, (self.size, self.size), mode="bilinear", align_corners=False, antialias=self.antialias
            )
        return ((images + 1) / 2 - self.mean) / self.std


def unit(features: Tensor) -> Tensor:
    """Features (B, D) as float32 unit vectors."""
    return F.normalize(features.float(), dim=-1)
