"""Crops and alignment against scikit-image, and their gradients."""

import math

import numpy as np
import pytest
import skimage.transform
import torch
from torch import Tensor

from distalign.faces.crop import ARCFACE, align_faces, crop_faces, expand_square, similarity_from_template


def test_expand_square() -> None:
    boxes = torch.tensor([[10.0, 20, 30, 60], [0, 0, 8, 4]])
    assert expand_square(boxes, 1.5).tolist() == [[-10, 10, 50, 70], [-2, -4, 10, 8]]


def test_crop_of_whole_pixels_is_a_slice() -> None:
    images = torch.rand(2, 3, 16, 20)
    boxes = torch.tensor([[4.0, 2, 12, 10], [11, 7, 19, 15]])
    crops = crop_faces(images, boxes, 8)
    torch.testing.assert_close(crops[0], images[0, :, 2:10, 4:12])
    torch.testing.assert_close(crops[1], images[1, :, 7:15, 11:19])


def test_crop_beyond_the_image_is_filled() -> None:
    images = torch.rand(1, 3, 8, 8)
    crop = crop_faces(images, torch.tensor([[-8.0, 0, 8, 16]]), 16)[0]
    torch.testing.assert_close(crop[:, :8, 8:], images[0])
    torch.testing.assert_close(crop[:, :, :8], torch.full((3, 16, 8), -1.0))
    torch.testing.assert_close(crop[:, 8:], torch.full((3, 8, 16), -1.0))


def test_crop_resizes_as_bilinear_interpolation() -> None:
    images = torch.rand(1, 3, 20, 20)
    inner = torch.nn.functional.interpolate(images, (50, 50), mode="bilinear", align_corners=False)
    crop = crop_faces(images, torch.tensor([[0.0, 0, 20, 20]]), 50)
    torch.testing.assert_close(crop[..., 2:-2, 2:-2], inner[..., 2:-2, 2:-2])


def test_images_without_a_face_stay_finite() -> None:
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    chips = crop_faces(images, torch.zeros(1, 4), 4), align_faces(images, torch.zeros(1, 5, 2), 16)
    assert all(chip.isfinite().all() for chip in chips)
    sum(chip.sum() for chip in chips).backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()


def turned(template: Tensor, degrees: float, scale: float, shift: tuple[float, float]) -> Tensor:
    angle = math.radians(degrees)
    rotation = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return scale * template @ rotation.T + torch.tensor(shift)


@pytest.mark.parametrize("degrees", [0, 25, -140])
def test_similarity_equals_umeyama(degrees: float) -> None:
    torch.manual_seed(0)
    points = turned(ARCFACE, degrees, 0.4, (9, 5)) + torch.randn(3, 5, 2)
    matrix, offset = similarity_from_template(points, ARCFACE)
    for one, m, o in zip(points, matrix, offset, strict=True):
        expected = skimage.transform.SimilarityTransform.from_estimate(one.double().numpy(), ARCFACE.double().numpy())
        inverse = np.linalg.inv(expected.params)
        np.testing.assert_allclose(m, inverse[:2, :2], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(o, inverse[:2, 2], rtol=1e-4, atol=1e-3)


def test_mirrored_landmarks_are_not_reflected() -> None:
    matrix, _ = similarity_from_template((ARCFACE * torch.tensor([-1.0, 1.0]))[None], ARCFACE)
    assert torch.det(matrix[0]) > 0


def test_aligned_landmarks_lie_on_the_template() -> None:
    points = turned(ARCFACE, 20, 0.5, (20, -2))[None]
    centres = torch.arange(96) + 0.5
    distance = (centres[None, None, :] - points[0, :, 0, None, None]) ** 2
    distance = distance + (centres[None, :, None] - points[0, :, 1, None, None]) ** 2
    spots = torch.exp(-distance / 8)  # one channel per landmark
    aligned = align_faces(spots[None], points, 56)[0]
    grid = torch.arange(56) + 0.5
    weight = aligned / aligned.sum((1, 2), keepdim=True)
    found = torch.stack([(weight.sum(1) * grid).sum(1), (weight.sum(2) * grid).sum(1)], 1)
    torch.testing.assert_close(found, ARCFACE / 2, atol=0.1, rtol=0)


def test_gradients() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[-1.0, 0.5, 4, 5], [2, 1, 6.2, 5.9]], dtype=torch.float64)
    landmarks = turned(ARCFACE, 10, 0.05, (0.5, 0.3))[None] + torch.rand(2, 5, 2)
    assert torch.autograd.gradcheck(lambda x: crop_faces(x, boxes, 4), images)
    assert torch.autograd.gradcheck(lambda x: align_faces(x, landmarks, 5), images)
