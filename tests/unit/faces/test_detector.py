"""The detector against TensorFlow's numbers, alone and in batches."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor

from distalign.errors import UserError
from distalign.faces import mtcnn
from distalign.faces.detector import Detector, Faces, largest, resize_area

EXPECTED = json.loads((Path(__file__).parents[2] / "data" / "mtcnn_expected.json").read_text())


def photograph(name: str, region: list[int] | None = None, stride: int = 1) -> Tensor:
    """A photograph shipped by scikit-image, (1, 3, H, W) in [-1, 1]; region is y, x, height, width."""
    image = getattr(skimage.data, name)()
    if region is not None:
        y, x, height, width = region
        image = image[y : y + height, x : x + width]
    image = np.ascontiguousarray(image[::stride, ::stride])
    return torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1


@pytest.fixture(scope="module")
def faces_and_others() -> Tensor:
    """Eight 128 px images: five of a face at several places, one shaded, two without a face."""
    astronaut = photograph("astronaut")
    views = [
        astronaut[..., y : y + 160, x : x + 160] for y, x in [(30, 140), (20, 160), (40, 150), (10, 130), (35, 155)]
    ]
    views += [views[0] * 0.6, astronaut[..., 300:460, 300:460], photograph("coffee")[..., 100:260, 100:260]]
    return resize_area(torch.cat(views), 128, 128)


@pytest.mark.parametrize(
    "case", EXPECTED["cases"], ids=lambda c: f"{c['image']}-{c['region']}-{c['stride']}-{c['min_face']}"
)
def test_equals_tensorflow(case: dict) -> None:
    found = Detector(case["min_face"]).detect(photograph(case["image"], case["region"], case["stride"]))[0]
    assert len(found) == len(case["boxes"])
    torch.testing.assert_close(found.boxes, torch.tensor(case["boxes"]).view(-1, 4), atol=0.01, rtol=0)
    torch.testing.assert_close(found.landmarks, torch.tensor(case["landmarks"]).view(-1, 5, 2), atol=0.01, rtol=0)
    torch.testing.assert_close(found.scores, torch.tensor(case["scores"]).view(-1), atol=1e-5, rtol=0)


def test_does_not_import_tensorflow() -> None:
    Detector()
    assert "tensorflow" not in sys.modules


def test_does_not_depend_on_the_batch(faces_and_others: Tensor) -> None:
    detector = Detector(min_face=30)
    together = detector.detect(faces_and_others)
    alone = [detector.detect(image[None])[0] for image in faces_and_others]
    assert sum(len(faces) for faces in together) >= 5
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.boxes, other.boxes, atol=1e-3, rtol=0)
        torch.testing.assert_close(one.landmarks, other.landmarks, atol=1e-3, rtol=0)
        torch.testing.assert_close(one.scores, other.scores, atol=1e-5, rtol=0)


def test_repeats_itself(faces_and_others: Tensor) -> None:
    detector = Detector(min_face=30)
    for one, other in zip(detector.detect(faces_and_others), detector.detect(faces_and_others), strict=True):
        assert torch.equal(one.boxes, other.boxes)


def test_scale_answers_in_original_pixels(faces_and_others: Tensor) -> None:
    small = resize_area(faces_and_others[:3], 64, 64)
    enlarged = torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear")
    for one, other in zip(Detector(30, scale=2).detect(small), Detector(30).detect(enlarged), strict=True):
        assert len(one)
        torch.testing.assert_close(one.boxes * 2, other.boxes)
        torch.testing.assert_close(one.landmarks * 2, other.landmarks)


def test_landmarks_are_ordered_as_seen() -> None:
    face = Detector().detect(photograph("astronaut"))[0]
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks[0]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]


def test_image_too_small_for_any_face() -> None:
    found = Detector().detect(torch.zeros(2, 3, 10, 10))
    assert [len(faces) for faces in found] == [0, 0]


def test_largest_clips_before_it_compares() -> None:
    boxes = torch.tensor([[10.0, 10, 40, 40], [-80, 0, 20, 40]])
    two = Faces(boxes, torch.arange(20.0).view(2, 5, 2), torch.tensor([0.9, 0.95]))
    none = Faces(boxes[:0], torch.zeros(0, 5, 2), torch.zeros(0))
    batch = largest([none, two], 64, 64)
    assert batch.found.tolist() == [False, True]
    assert torch.equal(batch.boxes[1], boxes[0])
    assert torch.equal(batch.landmarks[1], two.landmarks[0])
    assert batch.scores[1] == two.scores[0]
    assert not batch.boxes[0].any()


def test_largest_of_images_without_faces() -> None:
    none = Faces(torch.zeros(0, 4), torch.zeros(0, 5, 2), torch.zeros(0))
    batch = largest([none, none], 64, 64)
    assert not batch.found.any()
    assert batch.boxes.shape == (2, 4)


def test_wrong_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tmp_path / "pnet.lz4"
    wrong.write_bytes(b"not the weights")
    monkeypatch.setattr(mtcnn, "_weights_path", lambda name: wrong)
    with pytest.raises(UserError, match=r"pnet\.lz4.*sha256"):
        Detector()


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtcnn, "_weights_path", lambda name: tmp_path / f"{name}.lz4")
    with pytest.raises(UserError, match=r"pnet\.lz4: missing"):
        Detector()
