import math

import pytest
import torch
import torch.nn.functional as F

from distalign.alignment.losses import (
    alignment_loss,
    disagreement_factors,
    face_loss,
    intersect_boxes,
    scale_gradient_in_boxes,
    similarity_loss,
)


def test_alignment_loss_sums_attributes_and_ignores_missing_targets() -> None:
    logits = {"gender": torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 0.0]]), "race": torch.zeros(3, 4)}
    targets = {"gender": torch.tensor([1, -1, 0]), "race": torch.tensor([-1, -1, 2])}
    expected = [math.log(1 + math.exp(-1)), 0.0, math.log(2) + math.log(4)]
    assert alignment_loss(logits, targets).tolist() == pytest.approx(expected)


def test_similarity_and_face_losses() -> None:
    ours = {"clip": F.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0]])), "dino": torch.eye(2)}
    originals = {"clip": torch.tensor([[1.0, 0.0], [1.0, 0.0]]), "dino": torch.eye(2).flip(0)}
    assert similarity_loss(ours, originals).tolist() == pytest.approx([1.0, 1 - 0.5**0.5 + 1])
    assert face_loss(torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, -1.0]])).tolist() == [0, 2]


def test_the_least_factor_of_the_disagreeing_attributes_counts() -> None:
    factors = {"gender": 0.2, "race": 0.6}
    #                      agree, gender differs, race differs, both, no target, no face, original without face
    gender = torch.tensor([0, 0, 1, 0, -1, -1, -1])
    race = torch.tensor([2, 2, 3, 3, 2, -1, 1])
    original = {"gender": torch.tensor([0, 1, 1, 1, 1, 1, -1]), "race": torch.tensor([2, 2, 2, 2, 2, 2, -1])}
    found = torch.tensor([True, True, True, True, True, False, True])
    value = disagreement_factors({"gender": gender, "race": race}, original, found, factors)
    assert value.tolist() == pytest.approx([1, 0.2, 0.6, 0.2, 0.2, 1, 0.2])


def test_gradient_is_scaled_inside_the_common_box_only() -> None:
    images = torch.zeros(3, 3, 8, 8, requires_grad=True)
    ours = torch.tensor([[1.0, 2, 6, 7], [0, 0, 3, 3], [0, 0, 8, 8]])
    originals = torch.tensor([[2.0, 0, 9, 5], [5, 5, 8, 8], [-4, -4, 20, 20]])
    boxes = intersect_boxes(ours, originals)
    out = scale_gradient_in_boxes(images, boxes, torch.tensor([0.25, 0.5, 0.1]))
    assert torch.equal(out, images)
    out.sum().backward()
    expected = torch.ones(3, 3, 8, 8)
    expected[0, :, 2:5, 2:6] = 0.25
    expected[2] = 0.1
    assert torch.equal(images.grad, expected)
