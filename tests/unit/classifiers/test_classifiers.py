"""Models, augmentation, training, evaluation and card of the attribute classifiers, on coloured squares."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from distalign.classifiers import Classifier, build_classifier, load_classifier, save_classifier
from distalign.classifiers.augmentation import Augmentation, Augmenter
from distalign.classifiers.evaluation import calibration_error, evaluate
from distalign.classifiers.training import TrainingSpec, fit, train_classifier
from distalign.errors import UserError
from distalign.faces.dataset import FaceSet, load_faces
from distalign.faces.stored import StoredImages
from distalign.store.parquet import FACES, image_cells, write_table

SPEC = TrainingSpec("convnet", chip_size=16, expand=1.2, epochs=5, batch_size=32, learning_rate=5e-3, seed=1)


def write_squares(path: Path, count: int = 192) -> Path:
    """Squares on noise: bright means male, reddish means old; a third are held out."""
    rng = np.random.default_rng(0)
    male, old = rng.integers(2, size=count), rng.integers(2, size=count)
    images = rng.integers(100, 150, (count, 24, 24, 3), dtype=np.uint8)
    images[:, 6:18, 6:18] = (60 + 130 * male)[:, None, None, None]
    images[:, 6:18, 6:18, 0] += (50 * old)[:, None, None].astype(np.uint8)
    columns = {
        "image_id": [str(i) for i in range(count)],
        "image": image_cells(list(images)),
        "split": ["validation" if i % 3 == 0 else "train" for i in range(count)],
        "gender": [("female", "male")[i] for i in male],
        "race": [None] * count,
        "age": [("young", "old")[i] for i in old],
        "identity": [None] * count,
        "found": [True] * count,
        **{name: np.full(count, value) for name, value in zip(("x1", "y1", "x2", "y2"), (6, 6, 18, 18), strict=True)},
        "landmarks": np.full((count, 10), 12.0),
        "score": np.ones(count),
    }
    write_table(path, columns, FACES, {})
    return path


@pytest.mark.parametrize(("arch", "size"), [("convnet", 48), ("resnet_small", 48), ("mobilenet_v3_large", 32)])
def test_architectures(arch: str, size: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = build_classifier(arch, ["gender", "race"], size, 1.5).eval()
    if size == 48:
        assert 150_000 < sum(parameter.numel() for parameter in classifier.parameters()) < 250_000
    chips = torch.rand(2, 3, size, size, requires_grad=True)
    logits = classifier(chips)
    assert {name: tuple(value.shape) for name, value in logits.items()} == {"gender": (2, 2), "race": (2, 4)}
    logits["race"].sum().backward()
    assert chips.grad is not None
    save_classifier(tmp_path, classifier)
    loaded = load_classifier(tmp_path, attributes=["race"])
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert (loaded.chip_size, loaded.expand, loaded.attributes) == (size, 1.5, ("gender", "race"))
    assert torch.equal(loaded(chips)["gender"], logits["gender"])


def test_missing_attribute_is_named(tmp_path: Path) -> None:
    save_classifier(tmp_path, build_classifier("convnet", ["gender"], 16, 1.5))
    with pytest.raises(UserError, match="reads gender, not race"):
        load_classifier(tmp_path, attributes=["gender", "race"])


def test_unknown_names_are_named() -> None:
    with pytest.raises(UserError, match="architecture 'convnext'"):
        build_classifier("convnext", ["gender"], 16, 1.5)
    with pytest.raises(UserError, match="attribute 'beard'"):
        build_classifier("convnet", ["beard"], 16, 1.5)


def test_augmentation_without_strength_is_the_plain_chip() -> None:
    none = Augmentation(**dict.fromkeys(Augmentation.__dataclass_fields__, 0.0))
    classifier = build_classifier("convnet", ["gender"], 16, 1.5)
    images, boxes = torch.rand(3, 3, 24, 24) * 2 - 1, torch.tensor([[4.0, 5, 20, 18]]).repeat(3, 1)
    augmenter = Augmenter(16, 1.5, torch.Generator().manual_seed(0), none)
    torch.testing.assert_close(augmenter(images, boxes), classifier.chips(images, boxes))


def test_augmentation_mirrors_about_the_box() -> None:
    settings = dict.fromkeys(Augmentation.__dataclass_fields__, 0.0) | {"flip": 1.0}
    classifier = build_classifier("convnet", ["gender"], 16, 1.5)
    images, boxes = torch.rand(1, 3, 24, 24) * 2 - 1, torch.tensor([[4.0, 5, 20, 18]])
    augmenter = Augmenter(16, 1.5, torch.Generator().manual_seed(0), Augmentation(**settings))
    torch.testing.assert_close(augmenter(images, boxes), classifier.chips(images, boxes).flip(-1), atol=1e-5, rtol=0)


def test_augmentation_repeats_itself_and_reconstructs_a_share() -> None:
    images, boxes = torch.rand(64, 3, 24, 24) * 2 - 1, torch.tensor([[4.0, 5, 20, 18]]).repeat(64, 1)
    seen: list[int] = []

    def reconstruct(part: torch.Tensor) -> torch.Tensor:
        seen.append(len(part))
        return part

    first, second = (
        Augmenter(16, 1.5, torch.Generator().manual_seed(3), reconstruct=reconstruct)(images, boxes) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert first.shape == (64, 3, 16, 16)
    assert first.abs().max() <= 1
    assert 5 < seen[0] < 40


def test_training_learns_repeats_itself_and_writes_its_card(tmp_path: Path) -> None:
    faces = write_squares(tmp_path / "faces.parquet")
    data = {"age": faces, "gender": faces}
    classifier = train_classifier(SPEC, data, tmp_path / "one", {"stage": "test"})
    assert classifier.attributes == ("gender", "age")
    again = train_classifier(SPEC, data, tmp_path / "two", {"stage": "test"})
    assert all(torch.equal(a, b) for a, b in zip(classifier.parameters(), again.parameters(), strict=True))
    metrics = pq.read_table(tmp_path / "one" / "metrics.parquet").to_pylist()
    accuracy = {(r["attribute"], r["group"]): r for r in metrics if r["metric"] == "accuracy"}
    assert accuracy["gender", "all"]["value"] > 0.9
    assert accuracy["gender", "all"]["n"] == 64
    assert ("age", "gender=female,age=old") in accuracy
    assert not any("race" in row["group"] for row in metrics)
    card = (tmp_path / "one" / "card.md").read_text()
    assert "perceived" in card
    assert "| gender=male |" in card
    assert load_classifier(tmp_path / "one", attributes=["age"]).attributes == ("gender", "age")


def test_large_sets_are_decoded_batch_by_batch_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_squares(tmp_path / "faces.parquet")
    spec = replace(SPEC, epochs=1)
    decoded = fit(spec, [load_faces(path, "train", ["gender"])], None, "cpu")
    monkeypatch.setattr("distalign.faces.dataset.DECODED_BYTES", 0)
    faces = load_faces(path, "train", ["gender"])
    assert isinstance(faces.images, StoredImages)
    stored = fit(spec, [faces], None, "cpu")
    assert all(torch.equal(a, b) for a, b in zip(decoded.parameters(), stored.parameters(), strict=True))
    rows = [evaluate(it, {"gender": load_faces(path, "validation")}) for it in (decoded, stored)]
    assert rows[0] == rows[1]


def test_a_prepared_network_is_trained_on(tmp_path: Path) -> None:
    faces = load_faces(write_squares(tmp_path / "faces.parquet", 48), "train", ["gender"])
    spec = replace(SPEC, epochs=1, learning_rate=1e-9, weight_decay=0)

    def prepare(classifier: Classifier) -> None:
        torch.nn.init.constant_(classifier.heads["gender"].bias, 3)

    assert fit(spec, [faces], None, "cpu").heads["gender"].bias.max() < 2
    assert fit(spec, [faces], None, "cpu", prepare).heads["gender"].bias.tolist() == pytest.approx([3, 3])


def test_adversarial_training_withstands_small_changes(tmp_path: Path) -> None:
    faces = write_squares(tmp_path / "faces.parquet")
    data = load_faces(faces, "train", ["gender"])
    hardened = fit(replace(SPEC, adversarial=0.1), [data], None, "cpu")
    chips = hardened.chips(data.batch(torch.arange(64)), data.boxes[:64]).requires_grad_()
    labels = data.labels["gender"][:64]
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(hardened(chips)["gender"], labels), chips)
    predicted = hardened(chips + 0.1 * gradient.sign())["gender"].argmax(1)
    assert (predicted == labels).float().mean() > 0.9


def test_attributes_may_come_from_different_sets(tmp_path: Path) -> None:
    faces = write_squares(tmp_path / "a.parquet", 60), write_squares(tmp_path / "b.parquet", 45)
    spec = TrainingSpec("resnet_small", chip_size=16, expand=1.2, epochs=1, batch_size=32, learning_rate=1e-3)
    classifier = train_classifier(spec, {"gender": faces[0], "age": faces[1]}, tmp_path / "out", {})
    assert classifier.attributes == ("gender", "age")
    metrics = pq.read_table(tmp_path / "out" / "metrics.parquet").to_pylist()
    counts = {r["attribute"]: r["n"] for r in metrics if r["metric"] == "accuracy" and r["group"] == "all"}
    assert counts == {"gender": 20, "age": 15}


def test_calibration_error() -> None:
    sure = torch.tensor([[0.9, 0.1]]).repeat(10, 1)
    labels = torch.tensor([0] * 9 + [1])
    assert calibration_error(sure, labels) == pytest.approx(0, abs=1e-6)
    assert calibration_error(sure, 1 - labels) == pytest.approx(0.8, abs=1e-6)


def test_faces_of_unknown_class_are_left_out() -> None:
    torch.manual_seed(0)
    classifier = build_classifier("convnet", ["gender"], 16, 1.5).eval()
    faces = FaceSet(
        images=torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8),
        boxes=torch.tensor([[2.0, 2, 14, 14]]).repeat(4, 1),
        landmarks=torch.zeros(4, 5, 2),
        labels={"gender": torch.tensor([0, -1, -1, 1])},
        identity=torch.zeros(4, dtype=torch.int64),
    )
    rows = evaluate(classifier, {"gender": faces})
    assert {row["n"] for row in rows if row["group"] == "all" and row["metric"] != "confusion"} == {2}
