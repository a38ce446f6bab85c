"""Photographs as real pictures, and what is written of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distalign.errors import UserError
from distalign.measure.realism import FLOOR_PART, REFERENCE_PART
from distalign.measure.reference import Picture, photographs, write_reference
from distalign.store.parquet import REFERENCE, read_table


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten photographs, wider than high and of many sizes; the left and right quarters of each are black."""
    for index in range(10):
        pixels = np.zeros((20 + index, 2 * (20 + index), 3), np.uint8)
        pixels[:, (20 + index) // 2 : -((20 + index) // 2)] = 20 * index + 10
        place = tmp_path / "photographs" / ("more" if index % 2 else "")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{index}.{'PNG' if index % 3 else 'png'}")
    (tmp_path / "photographs" / "readme.txt").write_text("no picture")
    return tmp_path / "photographs"


def levels(pictures: list[Picture], part: str) -> set[int]:
    return {int(picture.image.float().mean().round()) for picture in pictures if picture.part == part}


def test_parts_share_no_picture_and_sides_are_cut(folder: Path) -> None:
    pictures = list(photographs(folder, 16, 4, seed=0))
    reference, floor = levels(pictures, REFERENCE_PART), levels(pictures, FLOOR_PART)
    assert (len(reference), len(floor)) == (4, 4)
    assert reference.isdisjoint(floor)
    assert reference | floor <= set(range(10, 210, 20))  # nothing of the black sides
    assert {tuple(picture.image.shape) for picture in pictures} == {(3, 16, 16)}
    assert {picture.prompt_id for picture in pictures} == {None}


def test_seed_draws_and_few_are_halved(folder: Path) -> None:
    first, again, other = (list(photographs(folder, 16, 3, seed)) for seed in (0, 0, 1))
    assert levels(first, REFERENCE_PART) == levels(again, REFERENCE_PART) != levels(other, REFERENCE_PART)
    pictures = list(photographs(folder, 16, 100, seed=0))
    assert [sum(picture.part == part for picture in pictures) for part in (REFERENCE_PART, FLOOR_PART)] == [5, 5]


def test_what_is_wrong_with_a_folder_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        list(photographs(tmp_path / "none", 16, 4, 0))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds 0 pictures; at least 4"):
        list(photographs(tmp_path / "empty", 16, 4, 0))
    (folder / "0.png").write_bytes(b"cut off")
    with pytest.raises(UserError, match=r"0\.png: 7 bytes"):
        list(photographs(folder, 16, 5, 0))


def test_features_are_written_in_order_whatever_the_batch(tmp_path: Path) -> None:
    images = [torch.full((3, 8, 8), 10 * i, dtype=torch.uint8) for i in range(7)]
    pictures = [Picture(FLOOR_PART, f"p{i}", image, {"age": "old"} if i else {}) for i, image in enumerate(images)]
    for batch in (3, 100):
        write_reference(tmp_path / "out", pictures, lambda images: images.mean((2, 3)), {}, batch, torch.device("cpu"))
        rows = read_table(tmp_path / "out", REFERENCE).to_pylist()
        assert [row["prompt_id"] for row in rows] == [picture.prompt_id for picture in pictures]
        assert [row["age"] for row in rows] == [None, *["old"] * 6]
        assert {row["gender"] for row in rows} == {None}
        assert rows[3]["dino"] == pytest.approx([30 / 127.5 - 1] * 3)
