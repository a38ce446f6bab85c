"""Archives of others can neither leave their folder nor fill the disk."""

import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distalign.errors import UserError
from distalign.store.archives import extract, members

FILES = {"data/a.txt": b"first", "data/deep/b.bin": bytes(range(256)) * 8, "c": b""}
MOST = 1 << 20


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes], **more: Any) -> Path:
    """A tar file; `more` are the fields of one more member, named `odd`, without content."""
    with tarfile.open(path, "w:gz") as opened:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
        if more:
            info = tarfile.TarInfo("odd")
            for name, value in more.items():
                setattr(info, name, value)
            opened.addfile(info)
    return path


@pytest.fixture(params=[zipped, tarred], ids=["zip", "tar"])
def pack(request: pytest.FixtureRequest) -> Callable[[Path, dict[str, bytes]], Path]:
    packer: Callable[[Path, dict[str, bytes]], Path] = request.param
    return packer


def test_what_is_packed_comes_out(tmp_path: Path, pack: Callable[..., Path]) -> None:
    path = pack(tmp_path / "a.archive", FILES)
    assert {member.name: member.size for member in members(path, MOST)} == {k: len(v) for k, v in FILES.items()}
    assert extract(path, tmp_path / "out", MOST) == list(FILES)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == FILES


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "..\\evil", "C:/evil", "\\\\host\\evil"])
def test_a_path_that_leads_out_is_refused(tmp_path: Path, pack: Callable[..., Path], name: str) -> None:
    path = pack(tmp_path / "slip", {"ok": b"fine", name: b"gotcha"})
    with pytest.raises(UserError, match=r"slip: holds '.*evil', a path that leads out of it\. Nothing was unpacked"):
        extract(path, tmp_path / "in" / "out", MOST)
    assert sorted(file.name for file in tmp_path.rglob("*") if file.is_file()) == ["slip"]


@pytest.mark.parametrize(
    "fields",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc"},
        {"type": tarfile.LNKTYPE, "linkname": "c"},
        {"type": tarfile.FIFOTYPE},
        {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = tarred(tmp_path / "links.tar", FILES, **fields)
    with pytest.raises(UserError, match="'odd' is a link or a device"):
        extract(path, tmp_path / "out", MOST)
    assert not (tmp_path / "out").exists()


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("odd")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "links.zip", "w") as opened:
        opened.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="'odd' is a link or a device"):
        extract(tmp_path / "links.zip", tmp_path / "out", MOST)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, pack: Callable[..., Path]) -> None:
    path = pack(tmp_path / "bomb", {"small": b"x", "zeros": bytes(MOST)})
    assert path.stat().st_size < MOST / 100
    with pytest.raises(UserError, match=r"more than the 1,048,576 bytes allowed, 1,048,576 in 'zeros' alone"):
        extract(path, tmp_path / "out", MOST)
    assert not (tmp_path / "out").exists()
    assert extract(path, tmp_path / "out", MOST + 1) == ["small", "zeros"]


def test_a_zip_that_understates_a_size_gives_no_more(tmp_path: Path) -> None:
    path = zipped(tmp_path / "liar.zip", {"zeros": bytes(5000)})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\1\2") + 24, 10)  # the size in the directory
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"liar\.zip"):
        extract(path, tmp_path / "out", 100)
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_place_are_refused(tmp_path: Path) -> None:
    for second in ("a", "A", "./a"):
        with zipfile.ZipFile(tmp_path / "twice.zip", "w") as opened:
            opened.writestr("a", b"shown")
            opened.writestr(second, b"hidden")
        with pytest.raises(UserError, match="twice"):
            members(tmp_path / "twice.zip", MOST)


def test_damaged_and_missing(tmp_path: Path, pack: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="nothing: no such file"):
        members(tmp_path / "nothing", MOST)
    whole = pack(tmp_path / "a", FILES).read_bytes()
    for content in (whole[: len(whole) // 2], b"<html>", b""):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(UserError, match="not a complete zip or tar file"):
            extract(tmp_path / "a", tmp_path / "out", MOST)


def test_what_was_there_stays_when_an_archive_is_refused(tmp_path: Path, pack: Callable[..., Path]) -> None:
    extract(pack(tmp_path / "good", FILES), tmp_path / "out", MOST)
    with pytest.raises(UserError):
        extract(pack(tmp_path / "bad", {"../x": b""}), tmp_path / "out", MOST)
    assert (tmp_path / "out/data/a.txt").read_bytes() == b"first"
