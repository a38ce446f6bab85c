"""Reading a labelled face Parquet."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distalign.errors import UserError
from distalign.faces.dataset import load_faces
from distalign.store.parquet import FACES, image_cells, write_table

WriteFaces = Callable[..., Path]


@pytest.fixture
def write_faces(tmp_path: Path) -> WriteFaces:
    """Four faces: three to train on, of which one was not found by the detector."""

    def write(**changed: list) -> Path:
        rng = np.random.default_rng(0)
        columns = {
            "image_id": ["a", "b", "c", "d"],
            "image": image_cells([rng.integers(0, 256, (8, 10, 3), dtype=np.uint8) for _ in range(4)]),
            "split": ["train", "train", "train", "test"],
            "gender": ["male", "female", "male", None],
            "race": ["indian", "wmelh", None, "black"],
            "age": ["old", "young", "old", "young"],
            "identity": [7, 8, None, 9],
            "found": [True, False, True, True],
            **{
                name: [value, None, value + 1, value + 2]
                for name, value in zip(("x1", "y1", "x2", "y2"), (1.0, 2, 6, 7), strict=True)
            },
            "landmarks": [list(range(10)), None, list(range(10)), list(range(10))],
            "score": [0.9, None, 0.9, 0.9],
        }
        path = tmp_path / "faces.parquet"
        write_table(path, columns | changed, FACES, {})
        return path

    return write


def test_found_faces_of_the_split(write_faces: WriteFaces) -> None:
    faces = load_faces(write_faces(), "train")
    assert len(faces) == 2
    assert faces.images.shape == (2, 3, 8, 10)
    assert faces.boxes.tolist() == [[1, 2, 6, 7], [2, 3, 7, 8]]
    assert faces.landmarks[0].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert faces.labels["gender"].tolist() == [1, 1]
    assert faces.labels["race"].tolist() == [3, -1]
    assert faces.labels["age"].tolist() == [1, 1]
    assert faces.identity.tolist() == [7, -1]
    batch = faces.batch(faces.identity.argsort())
    assert batch.shape == (2, 3, 8, 10)
    assert batch.min() >= -1
    assert batch.max() <= 1


def test_first_faces(write_faces: WriteFaces) -> None:
    faces = load_faces(write_faces(), "train")
    assert len(faces.first(None)) == 2
    first = faces.first(1)
    assert len(first) == 1
    assert (first.identity.tolist(), first.labels["race"].tolist(), len(first.boxes)) == ([7], [3], 1)


def test_only_the_wanted_attributes(write_faces: WriteFaces) -> None:
    assert list(load_faces(write_faces(), "test", ["race"]).labels) == ["race"]


def test_empty_split_is_named(write_faces: WriteFaces) -> None:
    with pytest.raises(UserError, match=r"faces\.parquet: no face in split 'validation'"):
        load_faces(write_faces(), "validation")


def test_unknown_class_is_named(write_faces: WriteFaces) -> None:
    path = write_faces(race=["white", "wmelh", None, "black"])
    with pytest.raises(UserError, match="column race: unknown classes"):
        load_faces(path, "train")


def test_several_sizes_are_refused(write_faces: WriteFaces) -> None:
    images = [np.zeros((8, 8 + i, 3), np.uint8) for i in range(4)]
    with pytest.raises(UserError, match="several sizes"):
        load_faces(write_faces(image=image_cells(images)), "train")
