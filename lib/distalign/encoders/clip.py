"""CLIP through open_clip: images and texts in one space."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save_file
from torch import Tensor

from distalign.encoders.interface import Preprocess, unit
from distalign.errors import UserError
from distalign.store.files import atomic_directory, atomic_write_json
from distalign.store.pretrained import check_record, readable

CONFIG = "open_clip_config.json"


def save_clip(
    directory: Path,
    model: torch.nn.Module,
    model_config: Mapping[str, Any],
    preprocess_config: Mapping[str, Any],
    tokenizer: Any = None,
) -> None:
    """Write a CLIP model as `ClipEncoder` and open_clip (`local-dir:`) read it.

    Args:
        directory: Where to write; replaced as a whole.
        model: What `open_clip.CLIP(**model_config)` makes.
        model_config: open_clip's `model_cfg`; with `hf_tokenizer_name` in its `text_cfg` if a tokenizer is given.
        preprocess_config: open_clip's `preprocess_cfg`, with `mean` and `std`.
        tokenizer: A transformers tokenizer; without one it is CLIP's own.
    """
    with atomic_directory(directory) as temporary:
        config = {"model_cfg": dict(model_config), "preprocess_cfg": dict(preprocess_config)}
        atomic_write_json(temporary / CONFIG, config)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(state, temporary / "open_clip_model.safetensors")
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)


class ClipEncoder:
    """A frozen CLIP model from a directory as open_clip writes it for a model hub.

    The directory holds `open_clip_config.json`, `open_clip_model.safetensors` and, where the config's `text_cfg` has a
    `hf_tokenizer_name`, the tokenizer's files (otherwise it is CLIP's own tokenizer, which open_clip carries).

    Args:
        directory: The model's directory.
        antialias: Low-pass before shrinking images (the paper's code does not).

    Raises:
        UserError: not such a directory, or not a complete one.
    """

    def __init__(self, directory: Path, antialias: bool = False) -> None:
        import open_clip  # takes seconds, and many jobs need no CLIP

        if not (Path(directory) / CONFIG).is_file():
            raise UserError(f"{directory}: not an open_clip model directory, {CONFIG} is missing.")
        check_record(directory)
        source = f"local-dir:{Path(directory).absolute()}"
        with readable(directory, "an open_clip model"):
            self.model = open_clip.create_model(source, require_pretrained=True).eval().requires_grad_(False)
            self.tokenizer = open_clip.get_tokenizer(source)
        visual = self.model.visual
        size = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
        self.preprocess = Preprocess(size, visual.image_mean, visual.image_std, antialias)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        """Move to a device and a precision, and return this encoder."""
        self.model.to(device, dtype)
        self.preprocess.to(device)
        return self

    def encode_images(self, images: Tensor) -> Tensor:
        """Unit vectors (B, D) float32 of images (B, 3, H, W) in [-1, 1]; differentiable."""
        dtype = next(self.model.parameters()).dtype
        return unit(self.model.encode_image(self.preprocess(images.float()).to(dtype)))

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (B, D) float32 of texts."""
        device = next(self.model.parameters()).device
        return unit(self.model.encode_text(self.tokenizer(list(texts)).to(device)))
