"""Face attribute classifiers: a trunk that reads a face chip, and one linear head per attribute."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from distalign.config.attributes import ATTRIBUTES
from distalign.errors import UserError
from distalign.faces.crop import crop_faces, expand_square
from distalign.faces.weights import load_network, save_network

FILE = "model.safetensors"


class Classifier(nn.Module):
    """Reads perceived attributes from square face chips.

    Attributes:
        arch: Name of the trunk's architecture, a key of `ARCHITECTURES`.
        chip_size: Side of the chips in pixels.
        expand: Side of a chip over the longer side of the detected box.
    """

    def __init__(self, arch: str, attributes: Iterable[str], chip_size: int, expand: float) -> None:
        super().__init__()
        self.arch = arch
        self.chip_size = chip_size
        self.expand = expand
        self.trunk, width = ARCHITECTURES[arch]()
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(ATTRIBUTES[name])) for name in attributes})

    @property
    def attributes(self) -> tuple[str, ...]:
        """Attributes it reads, in the order of its heads."""
        return tuple(self.heads)

    def forward(self, chips: Tensor) -> dict[str, Tensor]:
        """Logits (B, K) of each attribute for chips (B, 3, s, s) in [-1, 1]."""
        features = self.trunk(chips)
        return {name: head(features) for name, head in self.heads.items()}

    def probabilities(self, chips: Tensor) -> dict[str, Tensor]:
        """Class probabilities (B, K) of each attribute for chips (B, 3, s, s) in [-1, 1]."""
        return {name: logits.softmax(1) for name, logits in self(chips).items()}

    def chips(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Cut the chips it reads at detected boxes (B, 4) out of images (B, 3, H, W); differentiable."""
        return crop_faces(images, expand_square(boxes, self.expand), self.chip_size)


class JoinedClassifier(Classifier):
    """Several networks that read different attributes, used as one classifier: the authors' evaluation has three."""

    def __init__(self, parts: Sequence[Classifier]) -> None:
        nn.Module.__init__(self)
        self.parts = nn.ModuleList(parts)
        self.reads = [part.attributes for part in parts]
        self.arch, self.chip_size, self.expand = parts[0].arch, parts[0].chip_size, parts[0].expand

    @property
    def attributes(self) -> tuple[str, ...]:
        """Attributes of all networks, in the order of the networks."""
        return tuple(chain.from_iterable(self.reads))

    def forward(self, chips: Tensor) -> dict[str, Tensor]:
        """Logits (B, K) of each attribute for chips (B, 3, s, s) in [-1, 1]."""
        return {name: logits for part in self.parts for name, logits in part(chips).items()}


class _Residual(nn.Module):
    """Two 3 x 3 convolutions around which the input is added."""

    def __init__(self, width: int, norm: Callable[[int], nn.Module], activation: type[nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            norm(width),
            activation(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            norm(width),
        )
        self.activation = activation()

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.activation(features + self.body(features))
        return result


def _trunk(
    stem: list[nn.Module], widths: tuple[int, ...], norm: Callable[[int], nn.Module], activation: type[nn.Module]
) -> nn.Sequential:
    """Stem, then per width a convolution of stride 2 and a residual unit, then the mean over positions."""
    modules = list(stem)
    for inputs, width in pairwise(widths):
        modules += [
            nn.Conv2d(inputs, width, 3, stride=2, padding=1, bias=False),
            norm(width),
            activation(),
            _Residual(width, norm, activation),
        ]
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _group_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(4, width)


def _convnet() -> tuple[nn.Module, int]:
    widths = (16, 32, 64, 64)
    stem: list[nn.Module] = [
        nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False),
        _group_norm(widths[0]),
        nn.SiLU(),
    ]
    return _trunk(stem, widths, _group_norm, nn.SiLU), widths[-1]


def _resnet_small() -> tuple[nn.Module, int]:
    widths = (24, 48, 80)
    stem: list[nn.Module] = [
        nn.Conv2d(3, widths[0], 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        _Residual(widths[0], nn.BatchNorm2d, nn.ReLU),
    ]
    return _trunk(stem, widths, nn.BatchNorm2d, nn.ReLU), widths[-1]


def _mobilenet_v3_large() -> tuple[nn.Module, int]:
    """MobileNetV3-Large as in the paper: everything of torchvision's but its last linear layer."""
    from torchvision.models import mobilenet_v3_large

    network = mobilenet_v3_large(weights=None)
    width = int(network.classifier[-1].in_features)
    network.classifier = network.classifier[:-1]
    return network, width


ARCHITECTURES: dict[str, Callable[[], tuple[nn.Module, int]]] = {
    "mobilenet_v3_large": _mobilenet_v3_large,
    "convnet": _convnet,
    "resnet_small": _resnet_small,
}


def build_classifier(arch: str, attributes: Iterable[str], chip_size: int, expand: float) -> Classifier:
    """A new classifier, with random weights.

    Args:
        arch: `mobilenet_v3_large` (the paper's), `convnet` (GroupNorm, SiLU; fast on a CPU) or `resnet_small`
            (BatchNorm, ReLU, another stem: for evaluation).
        attributes: Attributes to read.
        chip_size: Side of the chips in pixels.
        expand: Side of a chip over the longer side of the detected box.

    Raises:
        UserError: unknown architecture or attribute.
    """
    names = tuple(attributes)
    if arch not in ARCHITECTURES:
        raise UserError(f"unknown classifier architecture {arch!r}; known are {', '.join(ARCHITECTURES)}.")
    unknown = [name for name in names if name not in ATTRIBUTES]
    if unknown:
        raise UserError(f"unknown attribute {unknown[0]!r}; known are {', '.join(ATTRIBUTES)}.")
    return Classifier(arch, names, chip_size, expand)


def save_classifier(directory: Path, classifier: Classifier) -> None:
    """Write a classifier to `directory/model.safetensors`."""
    header = {
        "arch": classifier.arch,
        "chip_size": classifier.chip_size,
        "expand": classifier.expand,
        "classes": {name: ATTRIBUTES[name] for name in classifier.attributes},
    }
    if isinstance(classifier, JoinedClassifier):
        header["parts"] = classifier.reads
    save_network(Path(directory) / FILE, classifier.state_dict(), header)


def load_classifier(directory: Path, device: torch.device | str = "cpu", attributes: Iterable[str] = ()) -> Classifier:
    """The classifier in a directory, frozen and in evaluation mode.

    Args:
        directory: Where `save_classifier` wrote it.
        device: Where to put it.
        attributes: Attributes it must be able to read.

    Raises:
        UserError: missing, cut off or foreign file; or an attribute it was not trained for.
    """
    path = Path(directory) / FILE
    tensors, header = load_network(path)
    lacking = [name for name in attributes if name not in header["classes"]]
    if lacking:
        raise UserError(
            f"{path}: this classifier reads {', '.join(header['classes'])}, not {', '.join(lacking)}; "
            "train it for that attribute or align only what it reads."
        )
    built = [
        build_classifier(header["arch"], names, header["chip_size"], header["expand"])
        for names in header.get("parts", [header["classes"]])
    ]
    classifier = JoinedClassifier(built) if "parts" in header else built[0]
    classifier.load_state_dict(tensors)
    return classifier.eval().requires_grad_(False).to(device)
