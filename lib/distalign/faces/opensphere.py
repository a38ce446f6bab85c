"""SFNet weights as OpenSphere trains and saves them (github.com/ydwen/opensphere), made the face embedding of a preset.

A run of OpenSphere leaves `config.yml` and `models/backbone_{iteration}.pth`: the state dictionary of the network
inside `DistributedDataParallel`. What the released code of the paper loads is `sfnet20_deprecated` after 100,000
iterations on VGGFace2: convolutions with bias and ReLU, no normalisation, 112 x 112 pixels in, 512 numbers out.
"""

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from distalign.errors import UserError
from distalign.faces.embedding import SFNet, SFNetConfig, save_embedder

CONFIG = "config.yml"
DEPTHS = {
    "sfnet4_deprecated": (0, 0, 0, 0),
    "sfnet10_deprecated": (0, 1, 2, 0),
    "sfnet20_deprecated": (1, 2, 4, 1),
    "sfnet36_deprecated": (2, 4, 8, 2),
    "sfnet64_deprecated": (3, 8, 16, 3),
}
NESTED = ("state_dict", "backbone")
PARALLEL = "module."


def convert_opensphere(checkpoint: Path, directory: Path) -> None:
    """Read a `backbone_*.pth` and write it as `faces.embedding.load_embedder` reads it.

    The size of the network is that of `config.yml`, beside the checkpoint or above it; without one, SFNet-20.

    Raises:
        UserError: no such file, not a plain checkpoint of tensors, or not every tensor of the network and no other.
    """
    if not checkpoint.is_file():
        raise UserError(
            f"{checkpoint}: no such file. It is in the data.zip of the paper's released code, below "
            "data/4-opensphere_checkpoints; name its place in the preset."
        )
    network = SFNet(_size(checkpoint))
    tensors = dict(_renamed(_state(checkpoint)))
    if wrong := sorted(_differences(tensors, network.state_dict())):
        some = "; ".join([*wrong[:4], "..."] if len(wrong) > 4 else wrong)
        raise UserError(f"{checkpoint}: not the SFNet of its {CONFIG}, or not SFNet-20 without one: {some}.")
    network.load_state_dict(tensors)
    save_embedder(directory, network)


def _size(checkpoint: Path) -> SFNetConfig:
    places = [parent / CONFIG for parent in checkpoint.absolute().parents[:2]]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return SFNetConfig()
    try:
        net = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["backbone"]
        net = net.get("net", net)
        kind, channels, embedding = net["type"], tuple(net.get("channels", SFNetConfig.widths)), net.get("out_channel")
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a configuration of OpenSphere with model.backbone.net.type ({error}).") from None
    if kind not in DEPTHS or net.get("in_channel", 3) != 3 or len(channels) != len(DEPTHS[kind]):
        raise UserError(f"{path}: backbone {kind} is not one of {', '.join(DEPTHS)} with four widths for RGB images.")
    return SFNetConfig(DEPTHS[kind], channels, embedding=embedding or SFNetConfig.embedding)


def _state(checkpoint: Path) -> Mapping[str, Tensor]:
    """The tensors of a checkpoint by their names."""
    try:
        state: Any = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{checkpoint}: not a checkpoint of tensors alone, or cut off ({reason}).") from None
    for key in NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"{checkpoint}: not a dictionary of tensors.")
    return state


def _renamed(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Names without the parallel wrapper's prefix; OpenSphere's first release called the strided convolution conv1."""
    wrapped = all(name.startswith(PARALLEL) for name in state)
    for name, tensor in state.items():
        plain = name.removeprefix(PARALLEL) if wrapped else name
        yield plain.replace(".0.conv1.", ".0.conv."), tensor.float()


def _differences(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterator[str]:
    yield from (f"{name} is missing" for name in wanted.keys() - found.keys())
    yield from (f"{name} is unknown" for name in found.keys() - wanted.keys())
    for name in wanted.keys() & found.keys():
        if found[name].shape != wanted[name].shape:
            yield f"{name} is {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
