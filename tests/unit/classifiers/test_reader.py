"""The reader that votes by nearest faces."""

import math

import pytest
import torch
from torch import Tensor

from distalign.classifiers.reader import Reader
from distalign.faces.bank import FaceBank


def on_circle(*degrees: float) -> Tensor:
    angle = torch.tensor(degrees) * math.pi / 180
    return torch.stack([angle.cos(), angle.sin()], 1)


def test_nearest_vote_by_distance() -> None:
    labels = {"gender": torch.tensor([0, 0, 1, 1]), "age": torch.tensor([-1, -1, 0, 1])}
    reader = Reader(FaceBank(on_circle(0, 20, 90, 120), labels), neighbours=3)
    shares = reader.probabilities(on_circle(10, 100))
    weights = [1 / (2 * math.sin(math.radians(angle) / 2)) for angle in (10, 10, 80)]
    assert shares["gender"][0, 0].item() == pytest.approx(sum(weights[:2]) / sum(weights), abs=1e-4)
    assert shares["gender"][1].argmax() == 1
    torch.testing.assert_close(shares["age"].sum(1), torch.ones(2))
    assert shares["age"][0].argmax() == 0  # faces of unknown age do not vote


def test_a_face_of_the_bank_itself() -> None:
    bank = FaceBank(on_circle(0, 90), {"gender": torch.tensor([0, 1])})
    shares = Reader(bank, neighbours=2).probabilities(on_circle(0))
    assert shares["gender"].isfinite().all()
    assert shares["gender"][0, 0] > 0.99
