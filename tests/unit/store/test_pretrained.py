"""The record of fetched files, and loading that leaves no tensor at random."""

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import Dinov2Config, Dinov2Model

from distalign.errors import UserError
from distalign.store.files import sha256_file
from distalign.store.pretrained import check_record, load_model, main, write_record


@pytest.fixture
def fetched(tmp_path: Path) -> Path:
    """A directory of links, as `obtain` makes it, with its record."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "model/unet").mkdir(parents=True)
    for name in ("config.json", "unet/weights.safetensors"):
        blob = tmp_path / "cache" / Path(name).name
        blob.write_text(name)
        (tmp_path / "model" / name).symlink_to(blob)
    sums = {name: sha256_file(tmp_path / "model" / name) for name in ("config.json", "unet/weights.safetensors")}
    write_record(tmp_path / "model", {"id": "owner/name"}, sums)
    return tmp_path / "model"


def test_record_is_compared(fetched: Path, tmp_path: Path) -> None:
    assert check_record(fetched) == check_record(fetched, full=True) == 2
    assert check_record(tmp_path) == 0


def test_emptied_cache_and_cut_files_are_named(fetched: Path) -> None:
    blob = (fetched / "unet/weights.safetensors").resolve()
    blob.write_text("cut")
    with pytest.raises(UserError, match=r"unet/weights\.safetensors: 3 bytes instead of the 24 fetched"):
        check_record(fetched)
    blob.unlink()
    with pytest.raises(UserError, match=r"unet/weights\.safetensors: gone; was the cache of the hub emptied"):
        check_record(fetched)


def test_all_checksums_are_compared_on_demand(fetched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(fetched.parent)]) == 0
    assert f"{fetched}: 2 files, as they were fetched" in capsys.readouterr().out
    (fetched / "config.json").resolve().write_text("other.json!")
    check_record(fetched)  # sizes alone do not tell
    assert main([str(fetched.parent)]) == 1
    assert "config.json: its SHA-256 is not the one recorded" in capsys.readouterr().err


def test_model_with_missing_or_cut_tensors_is_refused(tmp_path: Path) -> None:
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8)
    Dinov2Model(config).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    assert load_model(Dinov2Model, tmp_path).config.hidden_size == 16
    lost = "encoder.layer.0.mlp.fc1.weight"
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, file, {"format": "pt"})
    with pytest.raises(UserError, match=f"1 tensors of Dinov2Model are missing or misshapen: {lost}"):
        load_model(Dinov2Model, tmp_path)
    save_file(tensors | {lost: tensors[lost][:5].clone()}, file, {"format": "pt"})
    with pytest.raises(UserError, match="Dinov2Model"):
        load_model(Dinov2Model, tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=f"{tmp_path}: cannot be read as Dinov2Model"):
        load_model(Dinov2Model, tmp_path)
