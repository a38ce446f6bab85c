"""ImageNet weights of timm and torchvision, as the weights a classifier starts from."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large, mobilenet_v3_small

from distalign.classifiers import build_classifier
from distalign.classifiers.initial import start_from, timm_names
from distalign.errors import UserError
from distalign.store.files import sha256_file


@pytest.fixture(scope="module")
def timm_network() -> nn.Module:
    """Timm's network with random weights and statistics, some of them near its epsilon."""
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv3_large_100")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.copy_(10 ** torch.empty_like(module.running_var).uniform_(-4, 1))
    return network.double().eval()


def save(directory: Path, tensors: dict[str, Tensor]) -> Path:
    directory.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors")
    return directory


def test_timms_weights_give_timms_features(tmp_path: Path, timm_network: nn.Module) -> None:
    directory = save(tmp_path, timm_network.state_dict())
    classifier = build_classifier("mobilenet_v3_large", ["gender"], 64, 1.5).double().eval()
    heads = classifier.heads["gender"].weight.clone()
    start_from(classifier, directory)
    chips = torch.rand(2, 3, 64, 64, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        expected = timm_network.forward_head(timm_network.forward_features(chips), pre_logits=True)
        torch.testing.assert_close(classifier.trunk(chips), expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(classifier.heads["gender"].weight, heads)


def test_every_tensor_of_both_is_in_the_map(timm_network: nn.Module) -> None:
    names = timm_names()
    assert names.keys() == timm_network.state_dict().keys()
    assert set(names.values()) == mobilenet_v3_large().state_dict().keys()


def test_torchvisions_weights_are_taken_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = mobilenet_v3_large()
    classifier = build_classifier("mobilenet_v3_large", ["race", "age"], 64, 1.5)
    start_from(classifier, save(tmp_path, network.state_dict()))
    assert all(
        torch.equal(tensor, network.state_dict()[name]) for name, tensor in classifier.trunk.state_dict().items()
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("conv_stem.weight"), "is missing"),
        (lambda t: t.pop("blocks.2.1.se.conv_reduce.bias"), r"features\.5\.block\.2\.fc1\.bias is missing"),
        (lambda t: t.pop("blocks.2.1.bn1.weight"), r"features\.5\.block\.0\.1\.weight is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra is unknown"),
        (lambda t: t.update({"conv_head.bias": torch.zeros(7)}), r"classifier\.0\.bias is \(7,\), not \(1280,\)"),
    ],
)
def test_every_tensor_is_asked_for(tmp_path: Path, timm_network: nn.Module, change, said: str) -> None:
    tensors = timm_network.state_dict()
    change(tensors)
    classifier = build_classifier("mobilenet_v3_large", ["gender"], 64, 1.5)
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    with pytest.raises(UserError, match=f"not MobileNetV3-Large of timm or torchvision: .*{said}"):
        start_from(classifier, save(tmp_path, tensors))
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.state_dict().items())


@pytest.mark.parametrize("other", [mobilenet_v3_small, lambda: timm.create_model("resnet10t")], ids=["small", "resnet"])
def test_weights_of_another_network_are_refused(tmp_path: Path, other: Callable[[], nn.Module]) -> None:
    classifier = build_classifier("mobilenet_v3_large", ["gender"], 64, 1.5)
    with pytest.raises(UserError, match="not MobileNetV3-Large of timm or torchvision"):
        start_from(classifier, save(tmp_path, other().state_dict()))


def test_file_is_the_one_that_is_pinned(tmp_path: Path, timm_network: nn.Module) -> None:
    classifier = build_classifier("mobilenet_v3_large", ["gender"], 64, 1.5)
    with pytest.raises(UserError, match="no such file"):
        start_from(classifier, tmp_path)
    file = save(tmp_path, timm_network.state_dict()) / "model.safetensors"
    start_from(classifier, tmp_path, sha256_file(file))
    with pytest.raises(UserError, match=r"its SHA-256 is .*, not 00"):
        start_from(classifier, tmp_path, "0" * 64)
    assert load_file(file)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match="not a complete safetensors file"):
        start_from(classifier, tmp_path)
