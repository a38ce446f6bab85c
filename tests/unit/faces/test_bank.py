"""The bank of real faces."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from distalign.errors import UserError
from distalign.faces.bank import FaceBank, build_face_bank, load_bank, save_bank
from distalign.faces.crop import ARCFACE, align_faces
from distalign.faces.dataset import FaceSet
from distalign.faces.embedding import SFNet, SFNetConfig, embed


@pytest.fixture
def bank() -> FaceBank:
    torch.manual_seed(0)
    labels = {"gender": torch.tensor([0, 0, 1, 1, 1]), "age": torch.tensor([0, 1, 0, 0, 0])}
    return FaceBank(F.normalize(torch.randn(5, 6), dim=1), labels)


def test_nearest_is_of_the_wanted_classes(bank: FaceBank) -> None:
    query = bank.embeddings[[0, 0, 0, 3]]
    wanted = {"gender": torch.tensor([0, 1, 0, -1]), "age": torch.tensor([0, 0, 1, -1])}
    found = bank.nearest(query, wanted)
    assert torch.equal(found[0], bank.embeddings[0])
    best_male = 2 + int((bank.embeddings[2:] @ query[1]).argmax())
    assert torch.equal(found[1], bank.embeddings[best_male])
    assert torch.equal(found[2], bank.embeddings[1])
    assert torch.equal(found[3], bank.embeddings[3])


def test_unavailable_combination_is_named(bank: FaceBank) -> None:
    with pytest.raises(UserError, match="male and old"):
        bank.nearest(bank.embeddings[:1], {"gender": torch.tensor([1]), "age": torch.tensor([1])})


def test_what_a_bank_has_no_labels_of_is_not_asked_for(bank: FaceBank) -> None:
    plain = FaceBank(bank.embeddings, {"gender": bank.labels["gender"]})
    wanted = {"gender": torch.tensor([1]), "age": torch.tensor([1])}
    assert torch.equal(plain.nearest(bank.embeddings[3:4], wanted)[0], bank.embeddings[3])


def test_saved_and_loaded(bank: FaceBank, tmp_path: Path) -> None:
    save_bank(tmp_path / "bank.safetensors", bank)
    loaded = load_bank(tmp_path / "bank.safetensors")
    assert torch.equal(loaded.embeddings, bank.embeddings)
    assert list(loaded.labels) == list(bank.labels)
    assert all(torch.equal(loaded.labels[name], bank.labels[name]) for name in bank.labels)


def test_built_from_labelled_faces() -> None:
    torch.manual_seed(0)
    network = SFNet(SFNetConfig(depths=(0, 0), widths=(4, 4), input_size=16, embedding=8))
    faces = FaceSet(
        images=torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8),
        boxes=torch.zeros(4, 4),
        landmarks=(ARCFACE / 4).repeat(4, 1, 1),
        labels={"gender": torch.tensor([0, -1, 1, 1])},
        identity=torch.full((4,), -1),
    )
    bank = build_face_bank(network, faces)
    assert bank.labels["gender"].tolist() == [0, 1, 1]
    expected = embed(network, align_faces(faces.batch(torch.tensor([2])), faces.landmarks[2:3], 16))
    torch.testing.assert_close(bank.embeddings[1:2], expected)


def test_an_attribute_that_nobody_has_is_not_in_the_bank() -> None:
    network = SFNet(SFNetConfig(depths=(0, 0), widths=(4, 4), input_size=16, embedding=8))
    faces = FaceSet(
        images=torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8),
        boxes=torch.zeros(3, 4),
        landmarks=(ARCFACE / 4).repeat(3, 1, 1),
        labels={"gender": torch.tensor([0, -1, 1]), "race": torch.full((3,), -1)},
        identity=torch.full((3,), -1),
    )
    bank = build_face_bank(network, faces)
    assert {name: label.tolist() for name, label in bank.labels.items()} == {"gender": [0, 1]}
    with pytest.raises(UserError, match="no face of the bank's data set has all its labels"):
        build_face_bank(network, replace(faces, labels={"race": faces.labels["race"]}))
