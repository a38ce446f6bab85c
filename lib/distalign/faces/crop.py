"""Differentiable face crops and five-point alignment: one `grid_sample` for a whole batch.

Coordinates are continuous pixels: an image spans [0, W] x [0, H], the centre of its first pixel is (0.5, 0.5).
Gradients flow to the images; boxes and landmarks are taken as they are.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ARCFACE_SIZE = 112
ARCFACE = torch.tensor(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where ArcFace's 112 px template has the eyes, the nose and the corners of the mouth."""


def expand_square(boxes: Tensor, expand: float) -> Tensor:
    """Squares (..., 4) around boxes (..., 4): same centres, sides `expand` times the longer sides (the paper: 1.5)."""
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    half = (boxes[..., 2:] - boxes[..., :2]).amax(-1, keepdim=True) * expand / 2
    return torch.cat([centre - half, centre + half], -1)


def crop_faces(images: Tensor, boxes: Tensor, size: int, fill: float = -1) -> Tensor:
    """Cut one box out of each image, resized bilinearly without antialiasing, as the paper does.

    Args:
        images: (B, C, H, W).
        boxes: (B, 4) x1, y1, x2, y2; may reach beyond the image.
        size: Side of the result in pixels.
        fill: Value outside the image.

    Returns:
        (B, C, size, size).
    """
    boxes = boxes.to(images.dtype)
    step = (boxes[:, 2:] - boxes[:, :2]) / size
    return warp(images, torch.diag_embed(step), boxes[:, :2], size, fill)


def align_faces(images: Tensor, landmarks: Tensor, size: int = ARCFACE_SIZE, template: Tensor = ARCFACE) -> Tensor:
    """Turn, scale and shift each face so that its landmarks fit a template best, in the least squares sense.

    Args:
        images: (B, C, H, W) in [-1, 1].
        landmarks: (B, 5, 2) in pixels.
        size: Side of the result in pixels; the template is scaled along.
        template: (5, 2) landmarks in a 112 px image.

    Returns:
        (B, C, size, size), 0 outside the image (as the face networks were trained).
    """
    points = landmarks.to(images.dtype)
    target = template.to(points) * (size / ARCFACE_SIZE)
    matrix, offset = similarity_from_template(points, target)
    return warp(images, matrix, offset, size, fill=0)


def similarity_from_template(points: Tensor, template: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse of the similarity that maps `points` onto `template` best (Umeyama, 1991, without reflection).

    In the plane the similarity is one complex factor a = sum(conj(p) t) / sum |p|^2 of the centred points.

    Args:
        points: (B, n, 2).
        template: (n, 2).

    Returns:
        Matrix (B, 2, 2) and offset (B, 2) with point = matrix @ template point + offset. Coinciding points give a
        zero matrix.
    """
    centre, middle = points.mean(1), template.mean(0)
    p, t = points - centre[:, None], template - middle
    real = (p * t).sum((1, 2))
    imaginary = (p[..., 0] * t[..., 1] - p[..., 1] * t[..., 0]).sum(1)
    squared = (real**2 + imaginary**2).clamp(min=torch.finfo(points.dtype).tiny)
    inverse = p.square().sum((1, 2)) / squared  # 1 / a = conj(a) / |a|^2
    real, imaginary = real * inverse, -imaginary * inverse
    matrix = torch.stack([torch.stack([real, -imaginary], -1), torch.stack([imaginary, real], -1)], -2)
    return matrix, centre - matrix @ middle


def warp(images: Tensor, matrix: Tensor, offset: Tensor, size: int, fill: float) -> Tensor:
    """Sample each image bilinearly at matrix @ position + offset, for all pixel centres of a square result.

    Args:
        images: (B, C, H, W).
        matrix: (B, 2, 2), from positions in the result to positions in the image, both in pixels.
        offset: (B, 2) in pixels.
        size: Side of the result in pixels.
        fill: Value outside the image.

    Returns:
        (B, C, size, size).
    """
    centres = torch.arange(size, dtype=images.dtype, device=images.device) + 0.5
    rows, columns = torch.meshgrid(centres, centres, indexing="ij")
    position = torch.stack([columns, rows], -1).view(1, -1, 2) @ matrix.transpose(1, 2) + offset[:, None]
    extent = images.new_tensor([images.shape[-1], images.shape[-2]])
    grid = (position / extent * 2 - 1).view(-1, size, size, 2)
    return F.grid_sample(images - fill, grid, padding_mode="zeros", align_corners=False) + fill
