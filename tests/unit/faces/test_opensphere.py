"""Checkpoints of OpenSphere: the names of its releases and of its parallel wrapper, at reduced width."""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from distalign.errors import UserError
from distalign.faces.embedding import embed, load_embedder
from distalign.faces.opensphere import convert_opensphere
from distalign.weights import obtain
from helpers.opensphere import EMBEDDING, UNITS, WIDTHS, net, state


def run_folder(folder: Path, saved: Any, config: Any = None) -> Path:
    """A run of OpenSphere, as data.zip of the released code has it: config.yml and models/backbone_100000.pth."""
    (folder / "models").mkdir(parents=True)
    config = config or {"project": {}, "data": {}, "model": {"backbone": {"net": net()}, "head": {"net": {}}}}
    (folder / "config.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    torch.save(saved, folder / "models/backbone_100000.pth")
    return folder / "models/backbone_100000.pth"


def reference(tensors: dict[str, Tensor], chips: Tensor) -> Tensor:
    """SFNet-20 written down once more: f(chips)."""
    features = chips
    for stage, units in enumerate(UNITS, 1):

        def conv(inputs: Tensor, name: str, stride: int, stage: int = stage) -> Tensor:
            weight, bias = tensors[f"layer{stage}.{name}.weight"], tensors[f"layer{stage}.{name}.bias"]
            return nn.functional.conv2d(inputs, weight, bias, stride=stride, padding=1).relu()

        features = conv(features, "0.conv", 2)
        for unit in range(1, units + 1):
            features = features + conv(conv(features, f"{unit}.conv1", 1), f"{unit}.conv2", 1)
    return features.flatten(1) @ tensors["fc.weight"].T + tensors["fc.bias"]


def test_checkpoint_of_the_released_code_becomes_a_face_embedding(tmp_path: Path) -> None:
    run_folder(tmp_path / "20220424_210641", state())
    source = {"source": "opensphere", "path": "20220424_210641/models/backbone_100000.pth"}
    obtain(source, tmp_path / "face_embedding", tmp_path)
    network = load_embedder(tmp_path / "face_embedding")
    assert (network.config.depths, network.config.widths) == (UNITS, tuple(WIDTHS))
    chips = torch.rand(2, 3, 112, 112) * 2 - 1
    tensors = {name.removeprefix("module."): tensor for name, tensor in state().items()}
    torch.testing.assert_close(network(chips), reference(tensors, chips))
    both = reference(tensors, chips) + reference(tensors, chips.flip(-1))
    torch.testing.assert_close(embed(network, chips), nn.functional.normalize(both))


@pytest.mark.parametrize(
    "saved",
    [
        state(prefix=""),
        state(strided="conv1"),
        {"state_dict": state()},
        {"backbone": state(), "head": {"w": torch.zeros(2)}},
        OrderedDict((name, tensor.double()) for name, tensor in state().items()),
    ],
    ids=["no wrapper", "first release", "nested", "with head", "double"],
)
def test_other_ways_to_save_it_give_the_same(tmp_path: Path, saved: Any) -> None:
    convert_opensphere(run_folder(tmp_path / "a", state()), tmp_path / "first")
    convert_opensphere(run_folder(tmp_path / "b", saved), tmp_path / "second")
    first, second = (load_embedder(tmp_path / name).state_dict() for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_later_configurations_have_no_net(tmp_path: Path) -> None:
    path = run_folder(tmp_path / "run", state(), {"model": {"backbone": net()}})
    convert_opensphere(path, tmp_path / "out")
    assert load_embedder(tmp_path / "out").config.embedding == EMBEDDING


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("module.fc.bias"), "fc.bias is missing"),
        (lambda tensors: tensors.update({"module.layer1.1.prelu1.weight": torch.zeros(4)}), "prelu1.weight is unknown"),
        (lambda tensors: tensors.update({"module.fc.bias": torch.zeros(3)}), r"fc.bias is \(3,\), not \(12,\)"),
        (lambda tensors: tensors.update({"iteration": torch.zeros(1)}), "iteration is unknown"),
    ],
)
def test_every_tensor_is_asked_for_and_no_other(tmp_path: Path, change: Any, message: str) -> None:
    tensors = state()
    change(tensors)
    with pytest.raises(UserError, match=f"backbone_100000.pth: not the SFNet .*{message}"):
        convert_opensphere(run_folder(tmp_path / "run", tensors), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_a_configuration_it_has_to_be_sfnet20(tmp_path: Path) -> None:
    path = run_folder(tmp_path / "run", state())
    (tmp_path / "run/config.yml").unlink()
    with pytest.raises(UserError, match=r"fc.bias is \(12,\), not \(512,\)"):
        convert_opensphere(path, tmp_path / "out")


@pytest.mark.parametrize(
    "config",
    [
        {"model": {"backbone": {"net": net("sfnet20")}}},
        {"model": {"backbone": {"net": net("iresnet100")}}},
        {"model": {"backbone": {"net": net(in_channel=1)}}},
        {"model": {"backbone": {"net": net(channels=[4, 6])}}},
        {"model": {"backbone": {}}},
        ["not", "a", "mapping"],
    ],
)
def test_other_networks_are_refused_by_their_configuration(tmp_path: Path, config: Any) -> None:
    with pytest.raises(UserError, match=r"config\.yml: (backbone .* is not one of|not a configuration of OpenSphere)"):
        convert_opensphere(run_folder(tmp_path / "run", state(), config), tmp_path / "out")


class Code:
    """What a pickle may run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def test_code_cut_files_and_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_folder(tmp_path / "run", state())
    for content in (path.read_bytes()[:2000], b"", pickle.dumps(Code(), 2), pickle.dumps({"a": 1}, 2)):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"backbone_100000\.pth: not a (checkpoint|dictionary) of tensors"):
            convert_opensphere(path, tmp_path / "out")
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match=r"missing\.pth: no such file. It is in the data\.zip"):
        convert_opensphere(tmp_path / "missing.pth", tmp_path / "out")
