"""Batched MTCNN face detection, on any device, with the numbers of the `mtcnn` package's TensorFlow implementation.

Coordinates are continuous pixels: an image spans [0, W] x [0, H]. What looks odd below (a cell of 11 px, the `+ 1` in
box sizes, suppression by boxes that are themselves suppressed) is what the published weights were tuned with.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from distalign.faces.mtcnn import load_networks
from distalign.faces.suppression import suppress

PYRAMID_FACTOR = 0.709
CELL = 12
CHUNK_PIXELS = 2**18  # at once through the networks: bounds memory, suits CPU caches


@dataclass(frozen=True)
class Faces:
    """Faces of one image, best score first: boxes (n, 4) x1,y1,x2,y2, landmarks (n, 5, 2), scores (n,) in [0, 1].

    Landmarks are left eye, right eye, nose, left and right corner of the mouth, as seen in the image.
    """

    boxes: Tensor
    landmarks: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class FaceBatch:
    """One face per image: found (B,) bool, boxes (B, 4), landmarks (B, 5, 2), scores (B,); zeros where none is."""

    found: Tensor
    boxes: Tensor
    landmarks: Tensor
    scores: Tensor


@dataclass(frozen=True)
class _Candidates:
    """Boxes (n, 4) with their image's index (n,) and scores (n,)."""

    image: Tensor
    boxes: Tensor
    scores: Tensor

    def __getitem__(self, index: Tensor) -> "_Candidates":
        return _Candidates(self.image[index], self.boxes[index], self.scores[index])

    def suppressed(self, threshold: float, method: Literal["union", "min"] = "union") -> Tensor:
        """Indices of what is left after non-maximum suppression within each image."""
        return suppress(self.boxes, self.scores, self.image, threshold, method)


class Detector:
    """Finds the faces of a batch of images.

    Args:
        min_face: Smallest face to look for, in pixels of the enlarged image; at least 12.
        thresholds: Least face scores, in [0, 1], of the three networks.
        scale: Bilinear enlargement before detection, >= 1 (small images hold faces too small for MTCNN otherwise).
    """

    def __init__(self, min_face: float = 20, thresholds: Sequence[float] = (0.6, 0.7, 0.8), scale: float = 1.0) -> None:
        self.min_face = min_face
        self.thresholds = tuple(thresholds)
        self.scale = scale
        self._proposal, self._refine, self._output = load_networks()

    def to(self, device: torch.device | str) -> Self:
        """Move the networks to a device and return this detector."""
        for network in (self._proposal, self._refine, self._output):
            network.to(device)
        return self

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[Faces]:
        """Faces of every image of a batch (B, 3, H, W) in [-1, 1], in pixels of that image, not clipped to it.

        What is found in an image does not depend on the others of the batch. No gradient flows through detection.
        """
        chunk = max(1, int(CHUNK_PIXELS / (images.shape[-1] * images.shape[-2] * self.scale**2)))
        precision = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with precision, torch.autocast(images.device.type, enabled=False):
            return [faces for part in images.split(chunk) for faces in self._detect(part)]

    def _detect(self, images: Tensor) -> list[Faces]:
        images = images.detach().float()
        if self.scale != 1:
            images = F.interpolate(images, scale_factor=self.scale, mode="bilinear", align_corners=False)
        images = images * (127.5 / 128)  # the networks expect (uint8 - 127.5) / 128
        candidates = self._refined(images, self._proposals(images))
        candidates, landmarks = self._finished(images, candidates)
        counts = torch.bincount(candidates.image, minlength=len(images)).tolist()
        fields = (candidates.boxes / self.scale, landmarks / self.scale, candidates.scores)
        return [Faces(*parts) for parts in zip(*(field.split(counts) for field in fields), strict=True)]

    def _proposals(self, images: Tensor) -> _Candidates:
        """Square candidates from P-Net on an image pyramid."""
        found: list[_Candidates] = []
        for scale, height, width in pyramid(images.shape[-2], images.shape[-1], self.min_face):
            scores, offsets = self._proposal(resize_area(images, height, width))
            image, row, column = (scores > self.thresholds[0]).nonzero(as_tuple=True)
            corner = torch.stack([column, row], 1).float() * 2 + 1
            side = CELL - 1
            boxes = torch.cat([corner, corner + side], 1) + offsets[image, row, column] * side
            cells = _Candidates(image, boxes / scale, scores[image, row, column])
            found.append(cells[cells.suppressed(0.5)])
        if not found:
            empty = images.new_empty(0)
            return _Candidates(empty.long(), empty.view(0, 4), empty)
        merged = _Candidates(
            torch.cat([part.image for part in found]),
            torch.cat([part.boxes for part in found]),
            torch.cat([part.scores for part in found]),
        )
        return _squared(merged[merged.suppressed(0.7)])

    def _refined(self, images: Tensor, candidates: _Candidates) -> _Candidates:
        """Square candidates that pass R-Net."""
        scores, offsets = self._refine(sample_boxes(images, candidates.image, candidates.boxes, 24))
        kept = (scores > self.thresholds[1]).nonzero().squeeze(1)
        boxes = candidates.boxes[kept] + offsets[kept] * _sizes(candidates.boxes[kept]).repeat(1, 2)
        refined = _Candidates(candidates.image[kept], boxes, scores[kept])
        return _squared(refined[refined.suppressed(0.7)])

    def _finished(self, images: Tensor, candidates: _Candidates) -> tuple[_Candidates, Tensor]:
        """Faces that pass O-Net, with landmarks (n, 5, 2); images in order, best score first."""
        scores, offsets, landmarks = self._output(sample_boxes(images, candidates.image, candidates.boxes, 48))
        kept = (scores > self.thresholds[2]).nonzero().squeeze(1)
        squares = candidates.boxes[kept]
        sizes = _sizes(squares)
        finished = _Candidates(candidates.image[kept], squares + offsets[kept] * sizes.repeat(1, 2), scores[kept])
        landmarks = landmarks[kept] * sizes[:, None] + squares[:, None, :2] - 1
        left = finished.suppressed(0.7, "min")
        return finished[left], landmarks[left]


def largest(faces: Sequence[Faces], height: int, width: int) -> FaceBatch:
    """The face of largest area within the image, for each image of a batch of that size.

    Args:
        faces: What `Detector.detect` returned for B >= 1 images.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
    """
    first = faces[0]
    count = max(1, max(len(one) for one in faces))
    boxes = first.boxes.new_zeros(len(faces), count, 4)
    landmarks = first.landmarks.new_zeros(len(faces), count, 5, 2)
    scores = first.scores.new_zeros(len(faces), count)
    owner = torch.repeat_interleave(torch.tensor([len(one) for one in faces]))
    slot = torch.cat([torch.arange(len(one)) for one in faces])
    owner, slot = owner.to(boxes.device), slot.to(boxes.device)
    boxes[owner, slot] = torch.cat([one.boxes for one in faces])
    landmarks[owner, slot] = torch.cat([one.landmarks for one in faces])
    scores[owner, slot] = torch.cat([one.scores for one in faces])
    areas = visible_area(boxes, height, width)
    best = areas.argmax(1)
    rows = torch.arange(len(faces), device=boxes.device)
    found = areas[rows, best] > 0
    return FaceBatch(
        found,
        boxes[rows, best] * found[:, None],
        landmarks[rows, best] * found[:, None, None],
        scores[rows, best] * found,
    )


def visible_area(boxes: Tensor, height: int, width: int) -> Tensor:
    """Areas in square pixels of boxes (..., 4) clipped to the image."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    across = x2.clamp(0, width) - x1.clamp(0, width)
    down = y2.clamp(0, height) - y1.clamp(0, height)
    return across.clamp(min=0) * down.clamp(min=0)


def pyramid(height: int, width: int, min_face: float) -> list[tuple[float, int, int]]:
    """Scales of the image pyramid with the height and width of each level, the finest first."""
    shorter = min(height, width)
    levels = round(math.log(shorter / CELL) / -math.log(PYRAMID_FACTOR) - 1)
    sizes = []
    for level in range(levels):
        scale = CELL / min_face * PYRAMID_FACTOR**level
        if int(shorter * scale) >= CELL:
            sizes.append((scale, int(height * scale), int(width * scale)))
    return sizes


def _sizes(boxes: Tensor) -> Tensor:
    """(n, 2) width and height of boxes (n, 4), counting both borders."""
    return boxes[:, 2:] - boxes[:, :2] + 1


def _squared(candidates: _Candidates) -> _Candidates:
    """The smallest squares around the boxes, with the same centres."""
    size = candidates.boxes[:, 2:] - candidates.boxes[:, :2]
    side = size.amax(1, keepdim=True)
    corner = candidates.boxes[:, :2] + size / 2 - side / 2
    return _Candidates(candidates.image, torch.cat([corner, corner + side], 1), candidates.scores)


@lru_cache(maxsize=256)
def _area_matrix(source: int, target: int, device: torch.device) -> Tensor:
    """(target, source) weights: the share of each source pixel in each target pixel, by exact overlap."""
    step = source / target
    start = torch.arange(target, dtype=torch.float64)[:, None] * step
    pixel = torch.arange(source, dtype=torch.float64)
    overlap = torch.minimum(pixel + 1, start + step) - torch.maximum(pixel, start)
    return (overlap.clamp(min=0) / step).float().to(device)


def resize_area(images: Tensor, height: int, width: int) -> Tensor:
    """Resize (B, C, H, W) by fractional pixel overlap (`F.interpolate(mode="area")` rounds to whole pixels)."""
    rows = _area_matrix(images.shape[-2], height, images.device)
    columns = _area_matrix(images.shape[-1], width, images.device)
    return rows @ images @ columns.T


def sample_boxes(images: Tensor, image: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Bilinear crops (n, C, size, size) of boxes (n, 4), corner pixels on box corners, 0 outside the image.

    Args:
        images: (B, C, H, W).
        image: (n,) index of the image each box lies in, ascending.
        boxes: (n, 4) in pixels.
        size: Side of the crops in pixels.
    """
    if not len(boxes):
        return images.new_empty(0, images.shape[1], size, size)
    extent = boxes.new_tensor([images.shape[-1], images.shape[-2]])
    steps = torch.linspace(0, 1, size, device=boxes.device)
    corner, side = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    position = (corner[:, None] + steps[:, None] * side[:, None]) / extent  # (n, size, 2)
    grid = torch.stack(
        [position[:, None, :, 0].expand(-1, size, -1), position[:, :, None, 1].expand(-1, -1, size)], dim=-1
    )
    inside = ((grid >= 0) & (grid <= 1)).all(-1)
    # One row of crops per image, so that no image is copied per crop and no coordinate depends on the batch.
    counts = torch.bincount(image, minlength=len(images))
    slot = torch.arange(len(image), device=image.device) - (counts.cumsum(0) - counts)[image]
    most = int(counts.max())
    grids = grid.new_zeros(len(images), most, size, size, 2)
    grids[image, slot] = grid * 2 - 1
    crops = F.grid_sample(images, grids.flatten(1, 2), align_corners=True, padding_mode="border")
    crops = crops.unflatten(2, (most, size)).transpose(1, 2)[image, slot]
    return crops * inside[:, None]
