"""One file per trained network: safetensors, with what is needed to build the network in its header."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from distalign.errors import UserError
from distalign.store.files import atomic_write_bytes

HEADER_KEY = "distalign"


def save_network(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write a network's tensors and JSON-able header, completely or not at all."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    atomic_write_bytes(path, safetensors.torch.save(stored, {HEADER_KEY: json.dumps(dict(header))}))


def load_network(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file written by `save_network`.

    Raises:
        UserError: the file is missing, cut off, or was not written by this project.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file. Run the step that makes it.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER_KEY])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: not a complete safetensors file ({error}). Delete it and make it again.") from None
    except KeyError:
        raise UserError(
            f"{path}: a safetensors file without `{HEADER_KEY}` in its header; give one made here."
        ) from None
