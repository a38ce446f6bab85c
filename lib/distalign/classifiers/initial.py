"""ImageNet weights that MobileNetV3-Large starts from: of timm, or under the names of torchvision.

Both have the same layers in the same order under other names; a map from name to name says which is which, and every
tensor has to be there. In timm batch normalisation adds 1e-5 to the variance where torchvision adds 1e-3, so scales are
changed by as much as leaves the network's answers as they were.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor, nn

from distalign.classifiers.models import Classifier
from distalign.errors import UserError
from distalign.store.files import sha256_file

FILE = "model.safetensors"
HEAD = "classifier.3."  # of ImageNet's 1,000 classes: ours are others
TIMM_EPSILON = 1e-5
# Residual blocks of each stage in timm. Torchvision numbers all blocks through: `features.1` is the first.
STAGES = (1, 2, 3, 4, 2, 3)
SQUEEZED_STAGES = (2, 4, 5)  # with squeeze and excitation
AFFINE = ("weight", "bias")
NORM = (*AFFINE, "running_mean", "running_var", "num_batches_tracked")


def start_from(classifier: Classifier, directory: Path, sha256: str | None = None) -> None:
    """Put ImageNet weights into the trunk of a mobilenet_v3_large classifier; its heads stay as they are.

    Args:
        classifier: What to change.
        directory: Holds `model.safetensors`.
        sha256: What the SHA-256 of that file has to be, in hexadecimal digits; None: anything.

    Raises:
        UserError: no such file, another checksum, or not every tensor of the network and no other.
    """
    path = Path(directory) / FILE
    if not path.is_file():
        raise UserError(f"{path}: no such file. Put weights of MobileNetV3-Large there (docs/data.md).")
    if sha256 and (found := sha256_file(path)) != sha256:
        raise UserError(f"{path}: its SHA-256 is {found}, not {sha256} as the preset says. Get the file anew.")
    try:
        tensors = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: not a complete safetensors file ({error}). Get the file anew.") from None
    if "conv_stem.weight" in tensors:
        names = timm_names()
        tensors = _adapted({names.get(name, name): tensor for name, tensor in tensors.items()}, classifier.trunk)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(HEAD)}
    if wrong := list(_differences(tensors, classifier.trunk.state_dict())):
        some = "; ".join([*wrong[:4], "..."] if len(wrong) > 4 else wrong)
        raise UserError(f"{path}: not MobileNetV3-Large of timm or torchvision: {some}.")
    classifier.trunk.load_state_dict(tensors)


def timm_names() -> dict[str, str]:
    """Name in torchvision of each tensor of timm's `mobilenetv3_large_100`."""
    names = _unit("conv_stem", "bn1", "features.0")
    number = 0
    for stage, blocks in enumerate(STAGES):
        for block in range(blocks):
            number += 1
            theirs, ours = f"blocks.{stage}.{block}", f"features.{number}.block"
            parts = ["conv_dw", "conv_pw"] if stage == 0 else ["conv_pw", "conv_dw", "conv_pwl"]
            places = list(range(len(parts)))
            if stage in SQUEEZED_STAGES:
                places[-1] += 1
                for part, layer in (("conv_reduce", "fc1"), ("conv_expand", "fc2")):
                    names |= {f"{theirs}.se.{part}.{it}": f"{ours}.2.{layer}.{it}" for it in AFFINE}
            for index, (part, place) in enumerate(zip(parts, places, strict=True), 1):
                names |= _unit(f"{theirs}.{part}", f"{theirs}.bn{index}", f"{ours}.{place}")
    names |= _unit("blocks.6.0.conv", "blocks.6.0.bn1", f"features.{number + 1}")
    for theirs, ours in (("conv_head", "classifier.0"), ("classifier", "classifier.3")):
        names |= {f"{theirs}.{it}": f"{ours}.{it}" for it in AFFINE}
    return names


def _unit(convolution: str, norm: str, ours: str) -> dict[str, str]:
    """A convolution without bias and the normalisation behind it."""
    normed = {f"{norm}.{it}": f"{ours}.1.{it}" for it in NORM}
    return {f"{convolution}.weight": f"{ours}.0.weight"} | normed


def _adapted(tensors: Mapping[str, Tensor], trunk: nn.Module) -> dict[str, Tensor]:
    """Timm's tensors under torchvision's names, as a network with torchvision's normalisation needs them."""
    changed = dict(tensors)
    if "classifier.0.weight" in changed:  # a convolution of one pixel in timm
        changed["classifier.0.weight"] = changed["classifier.0.weight"].flatten(1)
    for name, module in trunk.named_modules():
        scale, variance = f"{name}.weight", f"{name}.running_var"
        if isinstance(module, nn.BatchNorm2d) and scale in changed and variance in changed:
            ratio = (changed[variance] + module.eps) / (changed[variance] + TIMM_EPSILON)
            changed[scale] = changed[scale] * ratio.sqrt()
    return changed


def _differences(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterator[str]:
    yield from (f"{name} is missing" for name in sorted(wanted.keys() - found.keys()))
    yield from (f"{name} is unknown" for name in sorted(found.keys() - wanted.keys()))
    for name in sorted(wanted.keys() & found.keys()):
        if found[name].shape != wanted[name].shape:
            yield f"{name} is {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
