"""Structure, use and files of the face embedding network."""

from pathlib import Path

import pytest
import torch

from distalign.errors import UserError
from distalign.faces.embedding import SFNet, SFNetConfig, embed, load_embedder, save_embedder

SMALL = SFNetConfig(depths=(0, 1), widths=(4, 8), input_size=16, embedding=12)


def test_default_is_sfnet20() -> None:
    with torch.device("meta"):
        network = SFNet()
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 20
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes["layer1.0.conv.weight"] == (64, 3, 3, 3)
    assert shapes["layer3.4.conv2.weight"] == (256, 256, 3, 3)
    assert shapes["layer4.1.conv1.bias"] == (512,)
    assert shapes["fc.weight"] == (512, 512 * 7 * 7)


def test_embedding_is_a_unit_vector_that_ignores_mirroring() -> None:
    torch.manual_seed(0)
    network, chips = SFNet(SMALL), torch.rand(3, 3, 16, 16, requires_grad=True)
    vectors = embed(network, chips)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(vectors, embed(network, chips.flip(-1)))
    vectors[:, 0].sum().backward()
    assert chips.grad is not None
    assert chips.grad.abs().sum() > 0


def test_saved_and_loaded(tmp_path: Path) -> None:
    network, chips = SFNet(SMALL), torch.rand(2, 3, 16, 16)
    save_embedder(tmp_path / "sfnet", network)
    loaded = load_embedder(tmp_path / "sfnet")
    assert loaded.config == SMALL
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(network(chips), loaded(chips))


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.safetensors: no such file"):
        load_embedder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match=r"model\.safetensors: not a complete"):
        load_embedder(tmp_path)
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors.*header"):
        load_embedder(tmp_path)
