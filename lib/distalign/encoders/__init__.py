"""Image and text encoders behind one small interface: images or texts in, unit vectors out."""

from pathlib import Path
from typing import Literal

from distalign.encoders.clip import ClipEncoder
from distalign.encoders.dino import DinoEncoder
from distalign.encoders.interface import ImageEncoder, TextEncoder

__all__ = ["ClipEncoder", "DinoEncoder", "ImageEncoder", "TextEncoder", "load_encoder"]


def load_encoder(kind: Literal["clip", "dino"], directory: Path, antialias: bool) -> ClipEncoder | DinoEncoder:
    """The encoder in a directory; `kind` is clip or dino, as in the presets."""
    return ClipEncoder(directory, antialias) if kind == "clip" else DinoEncoder(directory, antialias)
