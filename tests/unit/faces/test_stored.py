"""Images kept compressed, and work done in advance."""

import threading

import numpy as np
import pytest
import torch

from distalign.errors import UserError
from distalign.faces.stored import StoredImages, in_advance
from distalign.store.images import encode_jpeg, encode_png


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 10, 12, 3), dtype=np.uint8)


def test_rows_are_those_of_a_tensor(pixels: np.ndarray) -> None:
    stored = StoredImages(map(encode_png, pixels), "faces.parquet")
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    index = torch.tensor([3, 0, 6, 3])
    assert stored.shape == tensor.shape
    assert torch.equal(stored[index], tensor[index])
    assert stored[index[:0]].shape == (0, 3, 10, 12)
    first = stored.first(2)
    assert len(first) == 2
    assert torch.equal(first[torch.arange(2)], tensor[:2])
    with pytest.raises(IndexError):
        first[torch.tensor([2])]
    assert len(stored) == 7


def test_what_is_no_image_or_of_another_size_is_named(pixels: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"faces\.parquet: 4 bytes are not a complete PNG"):
        StoredImages([b"no!!"], "faces.parquet")
    with pytest.raises(UserError, match=r"faces\.parquet: images of several sizes \(from \(10, 11\) to \(10, 12\)\)"):
        StoredImages([encode_png(pixels[0]), encode_png(pixels[0, :, 1:])], "faces.parquet")
    cut = StoredImages([encode_jpeg(pixels[0]), encode_jpeg(pixels[1])[:-300]], "faces.parquet")
    assert cut[torch.tensor([0])].shape == (1, 3, 10, 12)
    with pytest.raises(UserError, match=r"faces\.parquet: .* not a complete"):
        cut[torch.tensor([1])]


def test_the_next_is_computed_meanwhile() -> None:
    second = threading.Event()

    def square(number: int) -> int:
        if number == 2:
            second.set()
        return number**2

    results = in_advance(square, [1, 2, 3])
    assert next(results) == (1, 1)
    assert second.wait(5)
    assert list(results) == [(2, 4), (3, 9)]
    assert list(in_advance(square, [])) == []


def test_an_error_arrives_with_its_item() -> None:
    results = in_advance(lambda number: 1 / number, [1, 0])
    assert next(results) == (1, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)
