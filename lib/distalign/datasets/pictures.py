"""Image files in a folder, or in a zip file that stays packed."""

import os
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from distalign.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png")
LARGEST = 64 << 20  # bytes of one image


class Pictures:
    """The image files below a folder or in a zip file, by the last parts of their paths.

    Args:
        path: The folder or zip file.
        parts: How many last parts of a path name a picture: 1 for `000001.jpg`, 2 for `train/1.jpg`.

    Attributes:
        names: Where each picture is, by its name.
        repeated: Names that a second picture had.

    Raises:
        UserError: not a complete zip file.
    """

    def __init__(self, path: Path, parts: int) -> None:
        self.path = Path(path)
        self._zip = None if self.path.is_dir() else self._opened()
        self.names: dict[str, str] = {}
        self.repeated: list[str] = []
        for member in sorted(self._members()):
            inside = PurePosixPath(member).parts
            if PurePosixPath(member).suffix.lower() in SUFFIXES and "__MACOSX" not in inside:
                name = "/".join(inside[-parts:])
                if name in self.names:
                    self.repeated.append(name)
                else:
                    self.names[name] = member

    def read(self, name: str) -> bytes | None:
        """The bytes of a picture; None if its file is damaged, or far too large for one."""
        member = self.names[name]
        try:
            if self._zip is None:
                file = self.path / member
                return file.read_bytes() if file.stat().st_size <= LARGEST else None
            return self._zip.read(member) if self._zip.getinfo(member).file_size <= LARGEST else None
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError):
            return None

    def _members(self) -> list[str]:
        if self._zip is not None:
            return [name for name in self._zip.namelist() if not name.endswith("/")]
        return [
            (Path(folder) / file).relative_to(self.path).as_posix()
            for folder, _, files in os.walk(self.path)
            for file in files
        ]

    def _opened(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except zipfile.BadZipFile as error:
            raise UserError(
                f"{self.path}: not a complete zip file ({error}). Download it again; if it is small, look into it: it "
                "may be a web page about the download."
            ) from None


def locate(folder: Path, places: list[str], what: str) -> Path:
    """The one of `places`, relative to a folder, that is there. A zip file unpacked beside itself does not count.

    Raises:
        UserError: there is no such folder, or none or several of the places in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. Put the data set there, or name another place in the preset.")
    there = [folder / place for place in places if (folder / place).exists()]
    there = [path for path in there if not (path.suffix == ".zip" and path.with_suffix("").is_dir())]
    if len(there) > 1:
        listed = ", ".join(path.relative_to(folder).as_posix() for path in there)
        raise UserError(f"{folder}: {what} are there several times: {listed}. Keep one.")
    if not there:
        raise UserError(f"{folder}: no {what}; looked for {', '.join(places)}. Layouts: docs/data.md.")
    return there[0]
