"""Images as they are stored: 8-bit RGB PNG bytes."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from distalign.errors import UserError

LARGEST = 89_000_000  # pixels


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """PNG bytes of an (H, W, 3) uint8 RGB image; the same bytes for the same pixels."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image is stored from uint8 (H, W, 3), not {image.dtype} {image.shape}")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """JPEG bytes, of high quality, of an (H, W, 3) uint8 RGB image: a quarter of PNG's for a photograph."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode PNG, JPEG or WebP bytes to an (H, W, 3) uint8 RGB image.

    Raises:
        UserError: the bytes are cut off or not an image.
    """
    with _opened(data) as image:
        return np.asarray(image.convert("RGB"))


def image_size(data: bytes) -> tuple[int, int]:
    """Height and width in pixels that PNG, JPEG or WebP bytes begin with saying; the pixels are not looked at.

    Raises:
        UserError: the bytes are not an image.
    """
    with _opened(data) as image:
        return image.height, image.width


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
            if image.width * image.height > LARGEST:  # Pillow's own check only warns
                raise UserError(f"an image of {image.width} x {image.height} pixels is not read; the largest is 89 MP")
            yield image
    except UnidentifiedImageError:
        raise UserError(f"{len(data)} bytes are not a complete PNG, JPEG or WebP image") from None
    except (OSError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{len(data)} bytes are not a complete PNG, JPEG or WebP image ({error})") from None
