import struct
import zipfile
from pathlib import Path

import pytest

from distalign.errors import UserError
from distalign.released import archive as module
from distalign.released.archive import Archive
from helpers.released import write_zip

MEMBERS = {
    "data/1-prompts/sports.json": b"{}",
    "data/5-nets/race/epoch=19.pt": b"weights" * 50,
    "__MACOSX/data/1-prompts/sports.json": b"a Mac's note",
}


@pytest.fixture(params=["zip", "folder"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    path = write_zip(tmp_path / "data.zip", MEMBERS)
    if request.param == "zip":
        return Archive(path)
    with zipfile.ZipFile(path) as opened:
        opened.extractall(tmp_path / "unpacked")
    return Archive(tmp_path / "unpacked")


def test_members_are_found_by_the_end_of_their_path(archive: Archive) -> None:
    assert archive.read(archive.find("1-prompts/sports.json")) == b"{}"
    assert archive.read(archive.find("race/*.pt")) == MEMBERS["data/5-nets/race/epoch=19.pt"]
    assert archive.inside("5-nets/race") == {"epoch=19.pt": "data/5-nets/race/epoch=19.pt"}


def test_what_lacks_is_named_with_what_is_there(archive: Archive) -> None:
    with pytest.raises(UserError, match=r"no member 1-prompts/sport.json. It holds .*data/1-prompts/sports.json"):
        archive.find("1-prompts/sport.json")
    with pytest.raises(UserError, match=r"no folder nets/race. Its folders are .*data/5-nets/race"):
        archive.inside("nets/race")


def test_two_of_a_name_are_not_chosen_from(tmp_path: Path) -> None:
    archive = Archive(write_zip(tmp_path / "two.zip", {"a/x/1.pt": b"", "b/x/2.pt": b""}))
    with pytest.raises(UserError, match=r"several members are called x/\*.pt: a/x/1.pt, b/x/2.pt"):
        archive.find("x/*.pt")
    with pytest.raises(UserError, match=r"several folders are called x. Its folders are a/x, b/x"):
        archive.inside("x")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:/evil"])
def test_a_path_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "slip.zip", {"data/ok": b"", name: b"gotcha"})
    with pytest.raises(UserError, match="leads out of it"):
        Archive(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["slip.zip"]


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "unpacked/x.pt").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match=r"x\.pt, a path that leads out"):
        Archive(tmp_path / "unpacked")


def test_missing_cut_off_and_a_web_page(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing.zip: no such file. Download it as docs/released.md says"):
        Archive(tmp_path / "nothing.zip")
    whole = write_zip(tmp_path / "data.zip", MEMBERS).read_bytes()
    for content in (whole[: len(whole) // 2], b"<html>Virus scan warning</html>", b""):
        (tmp_path / "data.zip").write_bytes(content)
        with pytest.raises(UserError, match="not a complete zip file"):
            Archive(tmp_path / "data.zip")


def test_a_damaged_member_is_noticed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "data.zip", MEMBERS)
    with zipfile.ZipFile(path) as opened:
        info = opened.getinfo("data/5-nets/race/epoch=19.pt")
    data = bytearray(path.read_bytes())
    data[info.header_offset + 30 + len(info.filename) + info.compress_size - 1] ^= 0xFF
    path.write_bytes(data)
    archive = Archive(path)
    with pytest.raises(UserError, match=r"epoch=19.pt is damaged"):
        archive.read(archive.find("race/*.pt"))


def test_an_encrypted_member_is_said_to_be(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "data.zip", {"a.json": b"{}"})
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, 6, 1)  # the flag in the member's own header
    struct.pack_into("<H", data, data.index(b"PK\1\2") + 8, 1)  # and in the directory
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a.json cannot be read .*encrypted"):
        Archive(path).read("a.json")


def test_a_bomb_is_not_unpacked(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 349)
    with pytest.raises(UserError, match=r"epoch=19.pt has 350 bytes, more than any file of the authors"):
        archive.read(archive.find("race/*.pt"))
