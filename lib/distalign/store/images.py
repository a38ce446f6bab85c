"""Images as they are stored: 8-bit RGB PNG bytes."""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from distalign.errors import UserError


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """PNG bytes of an (H, W, 3) uint8 RGB image; the same bytes for the same pixels."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image is stored from uint8 (H, W, 3), not {image.dtype} {image.shape}")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode PNG, JPEG or WebP bytes to an (H, W, 3) uint8 RGB image.

    Raises:
        UserError: the bytes are cut off or not an image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
                return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:
        raise UserError(f"{len(data)} bytes are not a complete PNG, JPEG or WebP image") from None
    except (OSError, SyntaxError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{len(data)} bytes are not a complete PNG, JPEG or WebP image ({error})") from None
