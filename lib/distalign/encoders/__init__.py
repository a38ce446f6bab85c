"""Image and text encoders behind one small interface: images or texts in, unit vectors out."""

from distalign.encoders.clip import ClipEncoder
from distalign.encoders.dino import DinoEncoder
from distalign.encoders.interface import ImageEncoder, TextEncoder

__all__ = ["ClipEncoder", "DinoEncoder", "ImageEncoder", "TextEncoder"]
