"""Pretrained weights brought to their place: shipped and verified, or linked from a directory."""

from pathlib import Path

import pytest

from distalign.errors import UserError
from distalign.miniworld.shipped import pack_component
from distalign.weights import checksums, obtain


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository that ships one component of two files."""
    model = tmp_path / "trained/unet"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model.parent / "index.json").write_text('{"a": 1}')
    pack_component("backbone", model.parent, tmp_path / "root/resources/world", {"steps": 1})
    return tmp_path / "root"


SHIPPED = {"source": "shipped", "path": "resources/world/backbone"}


def test_shipped_component_is_copied(root: Path, tmp_path: Path) -> None:
    obtain(SHIPPED, tmp_path / "out", root)
    assert (tmp_path / "out/index.json").read_text() == '{"a": 1}'
    assert (tmp_path / "out/unet/config.json").read_text() == "{}"


def test_shipped_component_with_another_checksum_is_refused(root: Path, tmp_path: Path) -> None:
    (root / "resources/world/backbone/index.json").write_text('{"a": 2}')
    with pytest.raises(UserError, match=r"index\.json: sha256"):
        obtain(SHIPPED, tmp_path / "out", root)
    assert not (tmp_path / "out").exists()


def test_unknown_component_names_the_others(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'clip'; there are backbone"):
        obtain({"source": "shipped", "path": "resources/world/clip"}, tmp_path / "out", root)


def test_directory_is_linked_file_by_file(root: Path, tmp_path: Path) -> None:
    obtain({"source": "directory", "path": str(tmp_path / "trained")}, tmp_path / "out", root)
    assert (tmp_path / "out/unet/config.json").is_symlink()
    assert (tmp_path / "out/unet/config.json").read_text() == "{}"


def test_missing_directory_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data/sfnet20: no such directory"):
        obtain({"source": "directory", "path": "data/sfnet20"}, tmp_path / "out", root)


def test_of_a_directory_only_what_is_read_is_linked(root: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name in ("config.json", "model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"):
        (tmp_path / "model" / name).write_text(name)
    source = {"source": "directory", "path": str(tmp_path / "model"), "variant": "fp16"}
    obtain(source, tmp_path / "out", root)
    linked = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert linked == {"config.json": "config.json", "model.safetensors": "model.fp16.safetensors"}


def test_directory_without_a_model_is_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no model in it"):
        obtain({"source": "directory", "path": str(tmp_path / "empty")}, tmp_path / "out", root)
    assert not (tmp_path / "out").exists()


def test_checksums_tell_shipped_weights_apart(root: Path) -> None:
    before = checksums(SHIPPED, root)
    assert before.keys() == {"index.json", "unet/config.json"}
    assert checksums({"source": "directory", "path": "anywhere"}, root) == {}
    assert checksums({"source": "shipped", "path": "resources/world/clip"}, root) == {}
