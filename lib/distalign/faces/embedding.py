"""Face embedding networks of the SphereFace family, as OpenSphere builds them, and their flip-augmented use."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distalign.faces.weights import load_network, save_network

FILE = "model.safetensors"


@dataclass(frozen=True)
class SFNetConfig:
    """Size of an SFNet; the defaults are SFNet-20, which the paper uses.

    Attributes:
        depths: Residual units per stage.
        widths: Channels per stage.
        input_size: Side of the aligned chips in pixels, a multiple of 2 ** stages.
        embedding: Length of the embedding.
    """

    depths: tuple[int, ...] = (1, 2, 4, 1)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    input_size: int = 112
    embedding: int = 512


class ResidualUnit(nn.Module):
    """Two convolutions, each followed by a ReLU, around which the input is added: no norm, no ReLU after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        for conv in (self.conv1, self.conv2):
            nn.init.normal_(conv.weight, std=0.01)

    def forward(self, features: Tensor) -> Tensor:
        """Keep the shape (B, C, H, W)."""
        return features + F.relu(self.conv2(F.relu(self.conv1(features))))


class DownUnit(nn.Module):
    """Convolution of stride 2 and ReLU."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, width, 3, stride=2, padding=1)
        nn.init.xavier_normal_(self.conv.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, width, H / 2, W / 2)."""
        return F.relu(self.conv(features))


class SFNet(nn.Module):
    """SphereFace network (Liu et al., 2017) of any size; parameter names are OpenSphere's `sfnet*_deprecated`."""

    def __init__(self, config: SFNetConfig = SFNetConfig()) -> None:
        super().__init__()
        self.config = config
        inputs = 3
        for stage, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True), start=1):
            units = [DownUnit(inputs, width), *(ResidualUnit(width) for _ in range(depth))]
            self.add_module(f"layer{stage}", nn.Sequential(*units))
            inputs = width
        side = config.input_size // 2 ** len(config.widths)
        self.fc = nn.Linear(inputs * side**2, config.embedding)

    def forward(self, chips: Tensor) -> Tensor:
        """Map aligned chips (B, 3, s, s) in [-1, 1] to features (B, embedding), not normalised."""
        features = chips
        for stage in range(1, len(self.config.widths) + 1):
            features = self.get_submodule(f"layer{stage}")(features)
        return self.fc(features.flatten(1))


def embed(network: nn.Module, chips: Tensor) -> Tensor:
    """Unit vectors (B, D) of aligned chips (B, 3, s, s): f(x) + f(mirrored x), normalised in float32."""
    both = network(torch.cat([chips, chips.flip(-1)])).float()
    first, second = both.chunk(2)
    return F.normalize(first + second, dim=1)


def save_embedder(directory: Path, network: SFNet) -> None:
    """Write a network to `directory/model.safetensors`."""
    save_network(Path(directory) / FILE, network.state_dict(), asdict(network.config))


def load_embedder(directory: Path, device: torch.device | str = "cpu") -> SFNet:
    """The network in a directory written by `save_embedder`, frozen.

    Raises:
        UserError: missing, cut off or foreign file.
    """
    tensors, header = load_network(Path(directory) / FILE)
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, Sequence) else value for name, value in header.items()
    }
    network = SFNet(SFNetConfig(**fields))
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False).to(device)
