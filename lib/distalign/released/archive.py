"""Members of a zip file, or of the folder it was unpacked to. Nothing is extracted: members are read into memory."""

import zipfile
import zlib
from pathlib import Path, PurePosixPath

from distalign.errors import UserError
from distalign.store.archives import zip_members

LARGEST = 2 << 30  # bytes of one member; the authors' largest, a bank of faces, has about 0.4e9
SHOWN = 12


class Archive:
    """A zip file or a folder, by the paths of its files.

    A member is named by the end of its path, so that it does not matter whether an archive begins with a folder of its
    own, nor which folder was unpacked.

    Raises:
        UserError: there is no such file, it is no complete zip file, or a member is a link or leads out of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            root = self.path.resolve()
            files = [file for file in sorted(self.path.rglob("*")) if file.is_file()]
            outside = [file for file in files if not file.resolve().is_relative_to(root)]
            if outside:
                raise UserError(f"{self.path}: holds {outside[0]}, a path that leads out of it. Not read; get it anew.")
            self.members = [file.relative_to(self.path).as_posix() for file in files]
        elif self.path.is_file():
            with self._zip() as opened:
                self.members = [member.name for member in zip_members(opened, self.path)]
        else:
            raise UserError(f"{self.path}: no such file. Download it as docs/released.md says, or name another place.")

    def find(self, name: str) -> str:
        """The one member that is, or whose path ends with, `name`, in which a `*` stands for any file name.

        Raises:
            UserError: none or several; says which there are.
        """
        found = [member for member in self.members if _ends_with(member, name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"{self.path}: several members are called {name}: {_listed(found)}. Keep one.")
        raise UserError(f"{self.path}: has no member {name}. It holds {_listed(self.members)}.")

    def inside(self, folder: str) -> dict[str, str]:
        """Members directly in the one folder that is, or whose path ends with, `folder`: file name -> member.

        Raises:
            UserError: no or several such folders; says which there are.
        """
        parents = {member: PurePosixPath(member).parent for member in self.members}
        folders = sorted({parent.as_posix() for parent in parents.values()})
        found = [name for name in folders if _ends_with(name, folder)]
        if len(found) != 1:
            problem = f"several folders are called {folder}" if found else f"has no folder {folder}"
            raise UserError(f"{self.path}: {problem}. Its folders are {_listed(found or folders)}.")
        return {PurePosixPath(it).name: it for it, parent in parents.items() if parent.as_posix() == found[0]}

    def read(self, member: str) -> bytes:
        """The bytes of a member.

        Raises:
            UserError: it is larger than any of the authors', encrypted, or damaged.
        """
        if self.path.is_dir():
            file = self.path / member
            self._check_size(member, file.stat().st_size)
            return file.read_bytes()
        with self._zip() as opened:
            self._check_size(member, opened.getinfo(member).file_size)
            try:
                return opened.read(member)  # never more than the size that was checked, whatever is packed
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise UserError(f"{self.path}: {member} is damaged ({error}). Download the archive again.") from None
            except (RuntimeError, NotImplementedError) as error:  # a password; a compression Python does not know
                raise UserError(f"{self.path}: {member} cannot be read ({error}). Unpack it yourself.") from None

    def _zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except zipfile.BadZipFile as error:
            raise UserError(
                f"{self.path}: not a complete zip file ({error}). Download it again; if it is small, look into it: it "
                "may be a web page about the download."
            ) from None

    def _check_size(self, member: str, size: int) -> None:
        if size > LARGEST:
            raise UserError(f"{self.path}: {member} has {size:,} bytes, more than any file of the authors. Not read.")


def _ends_with(path: str, name: str) -> bool:
    parts = PurePosixPath(path).parts
    wanted = PurePosixPath(name).parts
    # Macs add a folder with a file of their own for each.
    if "__MACOSX" in parts or len(parts) < len(wanted):
        return False
    return PurePosixPath(*parts[len(parts) - len(wanted) :]).match(name)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "nothing") + more
