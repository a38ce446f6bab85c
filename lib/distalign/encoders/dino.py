"""DINOv2 through transformers: the CLS output as an image's embedding."""

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from distalign.encoders.interface import Preprocess, unit
from distalign.errors import UserError
from distalign.store.files import read_json
from distalign.store.pretrained import check_record, load_model

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"


class DinoEncoder:
    """A frozen DINOv2 model from a directory written by `Dinov2Model.save_pretrained`.

    Images are resized to `crop_size` of the directory's `preprocessor_config.json`, or without one to the size the
    model was trained with.

    Args:
        directory: The model's directory.
        antialias: Low-pass before shrinking images (the paper's code does not).

    Raises:
        UserError: not such a directory, or not a complete one.
    """

    def __init__(self, directory: Path, antialias: bool = False) -> None:
        from transformers import Dinov2Model  # takes seconds, and many jobs need no DINO

        directory = Path(directory)
        if not (directory / CONFIG).is_file():
            raise UserError(f"{directory}: not a DINOv2 model directory, {CONFIG} is missing.")
        check_record(directory)
        self.model: nn.Module = load_model(Dinov2Model, directory)
        self.model.eval().requires_grad_(False)
        if (directory / PREPROCESSOR).is_file():
            size = read_json(directory / PREPROCESSOR)["crop_size"]["height"]
        else:
            size = read_json(directory / CONFIG)["image_size"]
        self.preprocess = Preprocess(size, IMAGENET_MEAN, IMAGENET_STD, antialias)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        """Move to a device and a precision, and return this encoder."""
        self.model.to(device, dtype)
        self.preprocess.to(device)
        return self

    def encode_images(self, images: Tensor) -> Tensor:
        """Unit vectors (B, D) float32 of images (B, 3, H, W) in [-1, 1]; differentiable."""
        return unit(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """The CLS output as it is, (B, D) float32: what distances between sets of images are computed on."""
        inputs = self.preprocess(images.float()).to(next(self.model.parameters()).dtype)
        features: Tensor = self.model(pixel_values=inputs).last_hidden_state[:, 0]
        return features.float()
