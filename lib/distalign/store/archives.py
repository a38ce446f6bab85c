"""Archives of others, zip and tar: what is in them, read or unpacked without leaving a folder.

Everything is looked at before anything is written. Refused: paths that lead out of the archive, links, devices, two
members of one name, and more bytes than were allowed for, whatever size an archive claims or hides.
"""

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from distalign.errors import UserError
from distalign.store.files import atomic_directory

BLOCK = 1 << 20
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)
NOT_TAKEN = "Nothing was unpacked; get the archive anew, or unpack it yourself where it can do no harm."


@dataclass(frozen=True)
class Member:
    """A file in an archive. `size`: bytes unpacked, as the archive says."""

    name: str
    size: int


def members(path: Path, most: int) -> list[Member]:
    """The files of an archive, in its order.

    Args:
        path: a zip file, or a tar file, compressed or not.
        most: bytes that all files together may have.

    Raises:
        UserError: no archive, a damaged one, or one that is refused; says which member and why.
    """
    with _opened(path) as archive:
        return archive.members(most)


def extract(path: Path, folder: Path, most: int) -> list[str]:
    """Unpack an archive into a folder, which appears when it is complete, in place of an earlier one.

    Links, owners, permissions and times of the archive are not taken.

    Args:
        path: as for `members`.
        folder: where to; nothing is written outside of it.
        most: bytes that all files together may have.

    Returns:
        The names of the files.

    Raises:
        UserError: as for `members`; nothing is left behind.
    """
    with _opened(path) as archive:
        found = archive.members(most)
        with atomic_directory(folder) as made:
            for member in found:
                target = made / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.reading(member) as source, target.open("xb") as copy:
                    _copy(source, copy, member, path)
    return [member.name for member in found]


def read_members(path: Path, most: int) -> Iterator[tuple[Member, IO[bytes]]]:
    """The files of an archive one after the other, each with its content to read before the next; nothing is written.

    Args:
        path: as for `members`.
        most: bytes that all files together may have.

    Raises:
        UserError: as for `members`, when it comes to the member; at the end also for bytes after the last one.
    """
    with _opened(path) as archive:
        for member in archive.members(most):
            with archive.reading(member) as source:
                yield member, source
        archive.finish(most)


def read_first(path: Path, most: int) -> tuple[Member, bytes]:
    """The first file of an archive, of at most so many bytes; nothing behind it is looked at.

    Raises:
        UserError: as for `members`; also if the archive holds no file.
    """
    with _opened(path) as archive:
        member = next(iter(archive.lazily(most)), None)
        if member is None:
            raise UserError(f"{path}: holds no file.")
        with archive.reading(member) as source:
            return member, source.read()


def check_name(name: str, path: Path) -> None:
    """Refuse the name of a member that would be outside of the folder it is unpacked to, on any system.

    Raises:
        UserError: names archive and member.
    """
    parts = PurePosixPath(name.replace("\\", "/"))
    if not name or parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0] or "\0" in name:
        raise UserError(f"{path}: holds {name!r}, a path that leads out of it. {NOT_TAKEN}")


def zip_members(opened: zipfile.ZipFile, path: Path) -> list[Member]:
    """The files of a zip file, once each, none of them a link or outside.

    Raises:
        UserError: names archive and member.
    """
    found = []
    for info in opened.infolist():
        check_name(info.filename, path)
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the writer kept no mode
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"{path}: {info.filename!r} is a link or a device, no file. {NOT_TAKEN}")
        if not info.is_dir():
            found.append(Member(info.filename, info.file_size))
    return _once(found, path)


class _Zip:
    def __init__(self, path: Path) -> None:
        self.path, self.opened = path, zipfile.ZipFile(path)

    def members(self, most: int) -> list[Member]:
        return list(self.lazily(most))

    def lazily(self, most: int) -> Iterator[Member]:
        return _counted(zip_members(self.opened, self.path), most, self.path)

    def reading(self, member: Member) -> IO[bytes]:
        return self.opened.open(member.name)

    def finish(self, most: int) -> None:
        pass  # a zip file is read from its end


class _Tar:
    def __init__(self, path: Path) -> None:
        self.path, self.opened = path, tarfile.open(path)  # noqa: SIM115 (closed by _opened)

    def members(self, most: int) -> list[Member]:
        # One after the other: to find the next, the one before is unpacked, so each is counted first.
        return _once(list(self.lazily(most)), self.path)

    def lazily(self, most: int) -> Iterator[Member]:
        return _counted(self._files(), most, self.path)

    def _files(self) -> Iterator[Member]:
        for info in self.opened:
            check_name(info.name, self.path)
            if info.isfile():
                yield Member(info.name, info.size)
            elif not info.isdir():
                raise UserError(f"{self.path}: {info.name!r} is a link or a device, no file. {NOT_TAKEN}")

    def reading(self, member: Member) -> IO[bytes]:
        source = self.opened.extractfile(member.name)
        assert source is not None  # a file, as `members` saw
        return source

    def finish(self, most: int) -> None:
        """Read what follows the last member: the checksum of a compressed archive stands behind zeros."""
        handle, left = self.opened.fileobj, most
        assert handle is not None
        handle.seek(self.opened.offset)
        while block := handle.read(BLOCK):
            left -= len(block)
            if left < 0 or block.strip(b"\0"):
                raise UserError(f"{self.path}: holds data behind its last member. {NOT_TAKEN}")


@contextmanager
def _opened(path: Path) -> Iterator["_Zip | _Tar"]:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file.")
    try:
        archive = _Zip(path) if zipfile.is_zipfile(path) else _Tar(path)
        with archive.opened:
            yield archive
    except DAMAGED as error:
        raise UserError(f"{path}: not a complete zip or tar file ({error}). Get it anew.") from None
    except (RuntimeError, NotImplementedError) as error:  # a password; a compression Python does not know
        raise UserError(f"{path}: cannot be read ({error}). {NOT_TAKEN}") from None


def _counted(found: Iterable[Member], most: int, path: Path) -> Iterator[Member]:
    total = 0
    for member in found:
        total += member.size
        if total > most:
            raise UserError(
                f"{path}: unpacked it has more than the {most:,} bytes allowed, {member.size:,} in {member.name!r} "
                f"alone. {NOT_TAKEN}"
            )
        yield member


def _once(found: list[Member], path: Path) -> list[Member]:
    """Names must differ by more than their spelling: some disks ignore case."""
    seen = set[str]()
    for member in found:
        place = PurePosixPath(member.name.replace("\\", "/")).as_posix().casefold()
        if place in seen:
            raise UserError(f"{path}: holds {member.name!r} twice. {NOT_TAKEN}")
        seen.add(place)
    return found


def _copy(source: IO[bytes], copy: IO[bytes], member: Member, path: Path) -> None:
    shutil.copyfileobj(source, copy, BLOCK)  # never more than the size that was counted: both formats stop there
    if copy.tell() != member.size:
        raise UserError(f"{path}: {member.name!r} is cut off. Get the archive anew.")
