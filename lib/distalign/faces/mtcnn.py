"""The three networks of MTCNN (Zhang et al., 2016) in torch, over the weights that ship in the `mtcnn` package.

The package itself imports TensorFlow, so its files are located through its metadata and read without importing it.
"""

import hashlib
import importlib.metadata
from io import BytesIO
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor, nn

from distalign.errors import UserError

WEIGHTS_SHA256 = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}


class ConvStack(nn.Sequential):
    """Convolutions, each followed by a PReLU and optionally by a max pooling of stride 2."""

    def __init__(self, layers: list[tuple[int, int, tuple[int, bool] | None]]) -> None:
        """Build from `(channels, kernel, pooling)`; pooling is `(kernel, pad at the end as TensorFlow "same")`."""
        modules: list[nn.Module] = []
        channels = 3
        for width, kernel, pooling in layers:
            modules += [nn.Conv2d(channels, width, kernel), nn.PReLU(width)]
            if pooling is not None:
                modules.append(nn.MaxPool2d(pooling[0], 2, ceil_mode=pooling[1]))
            channels = width
        super().__init__(*modules)


class ProposalNet(nn.Module):
    """P-Net: fully convolutional 12 px face classifier and box regressor."""

    def __init__(self) -> None:
        super().__init__()
        self.features = ConvStack([(10, 3, (2, True)), (16, 3, None), (32, 3, None)])
        self.offsets = nn.Conv2d(32, 4, 1)
        self.logits = nn.Conv2d(32, 2, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, 3, H, W) to scores (B, h, w) and box offsets (B, h, w, 4) of 12 px cells at stride 2."""
        features = self.features(images)
        return self.logits(features).softmax(1)[:, 1], self.offsets(features).permute(0, 2, 3, 1)


class RefineNet(nn.Module):
    """R-Net: classifier and box regressor on 24 px crops."""

    def __init__(self) -> None:
        super().__init__()
        self.features = ConvStack([(28, 3, (3, True)), (48, 3, (3, False)), (64, 2, None)])
        self.hidden = nn.Sequential(nn.Linear(576, 128), nn.PReLU(128))
        self.offsets = nn.Linear(128, 4)
        self.logits = nn.Linear(128, 2)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Map crops (n, 3, 24, 24) to face scores (n,) and box offsets (n, 4)."""
        hidden = self.hidden(_flatten_whc(self.features(crops)))
        return self.logits(hidden).softmax(1)[:, 1], self.offsets(hidden)


class OutputNet(nn.Module):
    """O-Net: classifier, box regressor and five landmarks on 48 px crops."""

    def __init__(self) -> None:
        super().__init__()
        self.features = ConvStack([(32, 3, (3, True)), (64, 3, (3, False)), (64, 3, (2, True)), (128, 2, None)])
        self.hidden = nn.Sequential(nn.Linear(1152, 256), nn.PReLU(256))
        self.offsets = nn.Linear(256, 4)
        self.landmarks = nn.Linear(256, 10)
        self.logits = nn.Linear(256, 2)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map crops (n, 3, 48, 48) to scores (n,), box offsets (n, 4), landmarks (n, 5, 2) as shares of the box."""
        hidden = self.hidden(_flatten_whc(self.features(crops)))
        landmarks = self.landmarks(hidden).unflatten(1, (2, 5)).transpose(1, 2)
        return self.logits(hidden).softmax(1)[:, 1], self.offsets(hidden), landmarks


def _flatten_whc(features: Tensor) -> Tensor:
    """Flatten (n, C, H, W) in the order W, H, C in which the weights were stored."""
    return features.permute(0, 3, 2, 1).flatten(1)


def load_networks() -> tuple[ProposalNet, RefineNet, OutputNet]:
    """The three networks with their weights, frozen, in evaluation mode, float32 on the CPU.

    Raises:
        UserError: the `mtcnn` package is missing, or one of its weight files is not the expected one.
    """
    networks = ProposalNet(), RefineNet(), OutputNet()
    for network, name in zip(networks, WEIGHTS_SHA256, strict=True):
        _assign(network, _read_weights(name))
    return networks


def _weights_path(name: str) -> Path:
    try:
        distribution = importlib.metadata.distribution("mtcnn")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            "The package `mtcnn`, which carries the face detector's weights, is not installed. "
            "Install the locked environment of envs/."
        ) from None
    return Path(str(distribution.locate_file(f"mtcnn/assets/weights/{name}.lz4")))


def _read_weights(name: str) -> list[np.ndarray[Any, Any]]:
    """Weight arrays of one network in Keras' order. The hash is checked before the pickle inside is opened."""
    path = _weights_path(name)
    if not path.is_file():
        raise UserError(f"{path}: missing face detector weights; reinstall mtcnn==1.0.0.")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != WEIGHTS_SHA256[name]:
        raise UserError(
            f"{path}: face detector weights have sha256 {found}, expected {WEIGHTS_SHA256[name]}; "
            "reinstall mtcnn==1.0.0."
        )
    arrays: list[np.ndarray[Any, Any]] = joblib.load(BytesIO(content))
    return arrays


def _assign(network: nn.Module, arrays: list[np.ndarray[Any, Any]]) -> None:
    """Copy Keras arrays into the parameters: HWIO to OIHW, (1, 1, C) PReLU slopes to (C,), (in, out) to (out, in)."""
    network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # pools 10 times faster on a CPU
    for parameter, array in zip(network.parameters(), arrays, strict=True):
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif array.ndim == 3:
            array = array.reshape(-1)
        elif array.ndim == 2:
            array = array.T
        parameter.data.copy_(torch.from_numpy(np.ascontiguousarray(array)))
