"""State dictionaries in PyTorch's own file format, read as tensors and nothing else."""

import io
import pickle
from collections.abc import Iterable

import torch
from torch import Tensor

from distalign.errors import UserError


def load_tensors(data: bytes, name: str) -> dict[str, Tensor]:
    """The tensors, on the CPU, of a file that `torch.save` wrote of a state dictionary.

    Args:
        data: The file.
        name: What messages call it.

    Raises:
        UserError: the file is damaged, or holds something else than tensors by name: a whole module, say.
    """
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes of the reader what it likes
        if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
            raise UserError(
                f"{name}: holds Python objects beside tensors. To read them is to run code of the file, so this is "
                "not done. If you trust it, write its tensors alone, in the environment it was made in, and use that:\n"
                "    module = torch.load('FILE', map_location='cpu')\n"
                "    torch.save(module.state_dict(), 'FILE')"
            ) from None
        reason = str(error).strip().partition(". ")[0] or "it ends too early"
        raise UserError(f"{name}: not a complete file of torch.save ({reason}). Download it again.") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{name}: should hold tensors by name, and holds {_kinds(state)}.")
    return {str(key): value.detach() for key, value in state.items()}


def check_names(found: Iterable[str], expected: Iterable[str], name: str) -> None:
    """Refuse a file that lacks a tensor or has one too many: neither is ever left out silently.

    Raises:
        UserError: naming the first few.
    """
    found, expected = set(found), set(expected)
    for kind, names in (("lacks", sorted(expected - found)), ("has unexpected", sorted(found - expected))):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(
                f"{name}: {kind} {', '.join(names[:3])}{more}. It should hold exactly {len(expected)} tensors; is it "
                "the right file, for this model?"
            )


def check_shape(tensor: Tensor, shape: Iterable[int], name: str) -> None:
    """Refuse a tensor of another shape.

    Raises:
        UserError: naming both shapes.
    """
    if tuple(tensor.shape) != tuple(shape):
        raise UserError(f"{name} has shape {tuple(tensor.shape)}, where {tuple(shape)} is needed.")


def _kinds(state: object) -> str:
    if isinstance(state, dict):
        key, value = next((key, value) for key, value in state.items() if not isinstance(value, Tensor))
        return f"{type(value).__name__} as {key!r}"
    return type(state).__name__
