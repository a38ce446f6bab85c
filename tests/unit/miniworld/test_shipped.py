"""Shipped weights: half precision, verified by checksum, clear about what is wrong."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from distalign.errors import UserError
from distalign.miniworld.shipped import install_component, pack_component


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A repository folder with one packed component."""
    made = tmp_path / "made"
    (made / "part").mkdir(parents=True)
    save_file({"w": torch.randn(4), "i": torch.arange(3)}, made / "part/model.safetensors", {"note": "kept"})
    (made / "config.json").write_text("{}")
    pack_component("toy", made, tmp_path / "shipped", {"command": "make toy", "seed": 0})
    return tmp_path / "shipped"


def test_round_trip(packed: Path, tmp_path: Path) -> None:
    """Every file arrives; floats are halves, integers untouched, facts in the manifest."""
    entry = install_component("toy", packed, tmp_path / "out")
    tensors = load_file(tmp_path / "out/part/model.safetensors")
    assert tensors["w"].dtype == torch.float16 and tensors["i"].dtype == torch.int64
    assert (tmp_path / "out/config.json").read_text() == "{}"
    assert entry["seed"] == 0 and set(entry["sha256"]) == {"config.json", "part/model.safetensors"}


def test_changed_weights_are_refused(packed: Path, tmp_path: Path) -> None:
    """A single changed byte is noticed, and nothing is installed."""
    path = packed / "toy/part/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"model\.safetensors.*sha256.*git checkout"):
        install_component("toy", packed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_file_component_and_manifest(packed: Path, tmp_path: Path) -> None:
    """Each is named, with the way out."""
    with pytest.raises(UserError, match="no component 'tyo'; there are toy"):
        install_component("tyo", packed, tmp_path / "out")
    (packed / "toy/config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json: missing"):
        install_component("toy", packed, tmp_path / "out")
    (packed / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="cannot read the manifest"):
        install_component("toy", packed, tmp_path / "out")
