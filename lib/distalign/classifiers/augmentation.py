"""Augmentation of whole batches of face chips.

A diffusion model finetuned against a classifier finds whatever fools it. So the classifier sees each face shifted,
turned, recoloured, blurred, noisy, partly covered, and as the diffusion model's own decoder would paint it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distalign.faces.crop import expand_square, warp

Reconstruct = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Augmentation:
    """Strengths. Shares are of the faces of a batch; ranges are uniform around no change.

    Attributes:
        shift: Largest shift of the chip, as a share of its side.
        scale: Largest change of its side, as a factor (0.2: from 1 / 1.2 to 1.2).
        rotation: Largest rotation in degrees.
        flip: Share mirrored.
        brightness: Largest addition, in [-1, 1] units.
        contrast: Largest change of contrast.
        saturation: Largest change of saturation.
        tint: Largest change of each channel's gain (skin tone carries information: keep it small).
        blur: Share blurred, by up to about 1.2 px.
        coarsen: Share halved in resolution and enlarged again.
        noise: Share with white noise.
        noise_level: Largest standard deviation of the noise.
        cover: Share with a rectangle of one colour over it.
        cover_side: Largest side of the rectangle, as a share of the chip's.
        reconstruct: Share passed through the `reconstruct` function, where there is one.
    """

    shift: float = 0.08
    scale: float = 0.2
    rotation: float = 12
    flip: float = 0.5
    brightness: float = 0.15
    contrast: float = 0.2
    saturation: float = 0.25
    tint: float = 0.06
    blur: float = 0.3
    coarsen: float = 0.15
    noise: float = 0.4
    noise_level: float = 0.12
    cover: float = 0.3
    cover_side: float = 0.4
    reconstruct: float = 0.12


class Augmenter:
    """Cuts augmented chips out of images; all randomness comes from one generator.

    Args:
        size: Side of the chips in pixels.
        expand: Side of a chip over the longer side of its box.
        generator: Random generator on the device of the images.
        settings: Strengths.
        reconstruct: Maps images (n, 3, H, W) in [-1, 1] to the same, for instance through a VAE.
    """

    def __init__(
        self,
        size: int,
        expand: float,
        generator: torch.Generator,
        settings: Augmentation = Augmentation(),
        reconstruct: Reconstruct | None = None,
    ) -> None:
        self.size = size
        self.expand = expand
        self.generator = generator
        self.settings = settings
        self.reconstruct = reconstruct

    @torch.no_grad()
    def __call__(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Augmented chips (B, 3, size, size) in [-1, 1] of boxes (B, 4) in images (B, 3, H, W)."""
        settings = self.settings
        if self.reconstruct is not None:
            images = self._some(images, settings.reconstruct, self.reconstruct)
        chips = self._recolour(self._cut(images, boxes))
        chips = self._some(chips, settings.blur, self._blur)
        chips = self._some(chips, settings.coarsen, _coarsen)
        chips = self._some(chips, settings.noise, self._noise)
        chips = self._some(chips, settings.cover, self._cover)
        return chips.clamp(-1, 1)

    def _uniform(self, *shape: int, low: float = -1, high: float = 1) -> Tensor:
        values = torch.rand(shape, generator=self.generator, device=self.generator.device)
        return low + (high - low) * values

    def _some(self, images: Tensor, share: float, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply a function to each image with probability `share`."""
        rows = (self._uniform(len(images), low=0) < share).nonzero().squeeze(1)
        return images.index_copy(0, rows, function(images[rows])) if len(rows) else images

    def _cut(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Shifted, scaled, rotated and mirrored crops, by one bilinear sampling."""
        settings, count = self.settings, len(images)
        squares = expand_square(boxes, self.expand)
        side = squares[:, 2] - squares[:, 0]
        centre = (squares[:, :2] + squares[:, 2:]) / 2
        centre = centre + self._uniform(count, 2) * settings.shift * side[:, None]
        zoom = side / self.size * (1 + settings.scale) ** self._uniform(count)
        angle = self._uniform(count) * math.radians(settings.rotation)
        mirror = torch.where(self._uniform(count, low=0) < settings.flip, -1.0, 1.0)
        cosine, sine = zoom * angle.cos(), zoom * angle.sin()
        matrix = torch.stack([cosine * mirror, -sine, sine * mirror, cosine], 1).view(-1, 2, 2)
        return warp(images, matrix, centre - matrix.sum(2) * (self.size / 2), self.size, fill=-1)

    def _recolour(self, chips: Tensor) -> Tensor:
        """Brightness, contrast, saturation and tint, as one affine map of the channels."""
        settings, count = self.settings, len(chips)
        saturation = 1 + settings.saturation * self._uniform(count, 1, 1)
        gain = 1 + settings.tint * self._uniform(count, 3, 1)
        gain = gain * (1 + settings.contrast * self._uniform(count, 1, 1))
        unit = torch.eye(3, device=chips.device)
        matrix = gain * (saturation * unit + (1 - saturation) / 3)
        shift = settings.brightness * self._uniform(count, 1, 1)
        return torch.baddbmm(shift, matrix, chips.flatten(2)).view_as(chips)

    def _blur(self, chips: Tensor) -> Tensor:
        soft = chips
        for _ in range(2):
            soft = F.avg_pool2d(soft, 3, stride=1, padding=1, count_include_pad=False)
        return torch.lerp(chips, soft, self._uniform(len(chips), 1, 1, 1, low=0))

    def _noise(self, chips: Tensor) -> Tensor:
        level = self._uniform(len(chips), 1, 1, 1, low=0) * self.settings.noise_level
        return chips + level * torch.randn(chips.shape, generator=self.generator, device=chips.device)

    def _cover(self, chips: Tensor) -> Tensor:
        """A rectangle of one colour somewhere on each chip."""
        count = len(chips)
        half = self._uniform(count, 2, 1, low=0.1) * self.settings.cover_side / 2
        centre = self._uniform(count, 2, 1, low=0)
        position = (torch.arange(self.size, device=chips.device) + 0.5) / self.size
        within = (position - centre).abs() < half  # (count, 2, size): columns, rows
        covered = within[:, 0, None, None, :] & within[:, 1, None, :, None]
        return torch.where(covered, self._uniform(count, 3, 1, 1), chips)


def _coarsen(chips: Tensor) -> Tensor:
    small = F.avg_pool2d(chips, 2)
    return F.interpolate(small, chips.shape[-2:], mode="bilinear", align_corners=False)
