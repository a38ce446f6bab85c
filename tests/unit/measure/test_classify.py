"""What is seen in generated images, with observers of known answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distalign.classifiers import build_classifier
from distalign.errors import UserError
from distalign.faces.detector import Faces
from distalign.measure.classify import Observers, classify
from distalign.prompts import Prompt
from distalign.store.parquet import CLASSIFIED, FEATURES, IMAGES, image_cells, read_table, write_table

PROMPTS = [Prompt("cook", "a cook", "cook", "test"), Prompt("pilot", "a pilot", "pilot", "test")]
SIZE = 24


class BrightFaces:
    """Finds a face in every image that is bright on average."""

    def detect(self, images: Tensor) -> list[Faces]:
        box, landmarks = torch.tensor([[4.0, 4, 20, 20]]), torch.rand(1, 5, 2) * 10 + 6
        none = Faces(box[:0], landmarks[:0], torch.zeros(0))
        return [Faces(box, landmarks, torch.ones(1)) if image.mean() > 0 else none for image in images]


class Pixels:
    """Encodes an image by its mean colour, a text by its first letter."""

    def encode_images(self, images: Tensor) -> Tensor:
        return torch.nn.functional.normalize(self.features(images), dim=1)

    def features(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) + 2

    def encode_texts(self, texts: list[str]) -> Tensor:
        return torch.nn.functional.normalize(torch.ones(len(texts), 3), dim=1)


class Cooks:
    """Sees a cook in everything."""

    def recognise(self, images: Tensor) -> list[str]:
        return ["cook"] * len(images)


def observers(concepts: Any = None) -> Observers:
    torch.manual_seed(0)
    both = build_classifier("convnet", ["gender", "race"], 16, 1.5).eval()
    one = build_classifier("convnet", ["gender"], 16, 1.5).eval()
    pixels: Any = Pixels()
    detector: Any = BrightFaces()
    classifiers = {"loss": one, "evaluation": both}
    return Observers(detector, classifiers, None, pixels, pixels, concepts, torch.device("cpu"))


def write_images(path: Path, levels: list[int], seed: int = 0) -> Path:
    pixels = [np.full((SIZE, SIZE, 3), level, np.uint8) for level in levels]
    columns = {
        "image_id": [str(index) for index in range(len(levels))],
        "prompt_id": ["cook", "pilot"] * (len(levels) // 2),
        "prompt": ["a cook", "a pilot"] * (len(levels) // 2),
        "index": list(range(len(levels))),
        "noise_seed": list(range(seed, seed + len(levels))),
        "image": image_cells(pixels),
    }
    write_table(path, columns, IMAGES, {})
    return path


def outputs(folder: Path) -> tuple[Path, Path]:
    return folder / "out.parquet", folder / "features.parquet"


READ = {"loss": ["gender"], "evaluation": ["gender", "race"]}


def test_faces_similarity_and_concepts(tmp_path: Path) -> None:
    images = write_images(tmp_path / "ours.parquet", [200, 10, 250, 220])
    originals = write_images(tmp_path / "originals.parquet", [200, 10, 250, 220])
    classify(images, originals, *outputs(tmp_path), PROMPTS, observers(Cooks()), {}, batch=3)
    rows = read_table(tmp_path / "out.parquet", CLASSIFIED(READ)).to_pylist()
    assert [row["found"] for row in rows] == [True, False, True, True]
    assert rows[1]["x1"] is None
    assert rows[1]["loss/gender=male"] is None
    for row in (rows[0], rows[2], rows[3]):
        assert row["x1"] == 4
        assert sum(row[f"evaluation/gender={name}"] for name in ("female", "male")) == pytest.approx(1)
    assert [row["concept_readable"] for row in rows] == [True, False, True, False]
    assert all(row["clip_i"] == pytest.approx(1) and row["dino"] == pytest.approx(1) for row in rows)
    assert all(row["clip_t"] == pytest.approx(1) for row in rows)
    features = read_table(tmp_path / "features.parquet", FEATURES).to_pylist()
    assert [(row["prompt_id"], row["index"]) for row in features] == [(row["prompt_id"], row["index"]) for row in rows]
    assert features[1]["dino"] == pytest.approx([10 / 127.5 + 1] * 3)  # as they are, not unit vectors


def test_the_original_has_no_likeness_to_itself(tmp_path: Path) -> None:
    images = write_images(tmp_path / "original.parquet", [200, 10])
    classify(images, None, *outputs(tmp_path), PROMPTS, observers(), {}, batch=8)
    rows = read_table(tmp_path / "out.parquet", CLASSIFIED(READ)).to_pylist()
    assert all(row["clip_i"] is None and row["dino"] is None and row["concept_readable"] is None for row in rows)


def test_originals_of_other_noises_are_refused(tmp_path: Path) -> None:
    images = write_images(tmp_path / "ours.parquet", [200, 10])
    originals = write_images(tmp_path / "originals.parquet", [200, 10], seed=7)
    with pytest.raises(UserError, match="other prompts or noises"):
        classify(images, originals, *outputs(tmp_path), PROMPTS, observers(), {}, batch=8)
    assert not (tmp_path / "out.parquet").exists()
    assert not (tmp_path / "features.parquet").exists()
