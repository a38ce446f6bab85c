"""The reader that votes by nearest faces."""

import math

import pytest
import torch
from torch import Tensor

from distalign.classifiers.reader import Reader, build_reader_bank, encode_chips
from distalign.faces.bank import FaceBank
from distalign.faces.dataset import FaceSet


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


class MeanColour:
    """An encoder that sees only the mean colour."""

    def encode_images(self, images: Tensor) -> Tensor:
        return torch.nn.functional.normalize(images.mean((2, 3)), dim=1)


def test_bank_of_chips() -> None:
    images = torch.full((2, 3, 20, 20), 128, dtype=torch.uint8)
    images[0, 0, 5:15, 5:15], images[1, 2, 5:15, 5:15] = 255, 255
    boxes = torch.tensor([[5.0, 5, 15, 15]]).repeat(2, 1)
    labels = {"gender": torch.tensor([0, 1])}
    faces = FaceSet(images, boxes, torch.zeros(2, 5, 2), labels, torch.zeros(2, dtype=torch.int64))
    bank = build_reader_bank(MeanColour(), faces, size=8, expand=1.0)
    assert bank.embeddings.shape == (2, 3)
    query = encode_chips(MeanColour(), faces.batch(torch.tensor([1, 0])), boxes, 8, 1.0)
    assert Reader(bank, 1).probabilities(query)["gender"].argmax(1).tolist() == [1, 0]
