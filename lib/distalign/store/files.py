"""Files that are there completely or not at all.

Everything is written under a temporary name in the same directory, flushed to the disk, and renamed. A process killed
at any moment leaves at most a `.NAME.tmp`, which the next attempt overwrites. One path has one writer at a time: that
is what Snakemake's rules and rank 0 guarantee.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from distalign.errors import UserError

HASH_BLOCK = 1 << 20
TIMESTAMP = ".snakemake_timestamp"  # empty; Snakemake keeps one in each folder that is an output


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write into, which becomes `path` when the block ends without an error.

    Raises:
        UserError: the disk is full, or the place cannot be written to. Nothing is left behind.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    with _explain(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
            _sync_directory(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """An empty directory to write into, which becomes `path`, in place of an earlier one, when the block ends well."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    previous = path.with_name(f".{path.name}.old")
    with _explain(path):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            _sync_tree(temporary)
            shutil.rmtree(previous, ignore_errors=True)
            if path.exists():
                path.replace(previous)
            temporary.replace(path)
            _sync_directory(path.parent)
            shutil.rmtree(previous, ignore_errors=True)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, completely or not at all; parent directories are made."""
    with atomic_file(path) as handle:
        handle.write(data)


def atomic_write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with the line ends it has."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: Path, value: Any) -> None:
    """Write JSON a person can read and a diff can follow: indented, keys in their order, one newline at the end."""
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: missing, cut off, or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Run the step that makes it.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path}: not a complete JSON file ({error}). Delete it and run again to make it anew."
        ) from None


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as handle:
        while block := handle.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_tree(path: Path, stamped: bool = False) -> str:
    """SHA-256 of a file, or of a directory's relative names and contents in sorted order.

    Snakemake's time stamps do not count: a copy without them is the same.

    Args:
        path: The file or directory.
        stamped: Count an empty time stamp in the directory itself, there or not: what was recorded when they counted.
    """
    path = Path(path)
    if path.is_file():
        return sha256_file(path)
    sums = {file: sha256_file(file) for file in path.rglob("*") if file.is_file() and file.name != TIMESTAMP}
    if stamped:
        sums[path / TIMESTAMP] = hashlib.sha256().hexdigest()
    digest = hashlib.sha256()
    for file, sha256 in sorted(sums.items()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256}\n".encode())
    return digest.hexdigest()


@contextmanager
def _explain(path: Path) -> Iterator[None]:
    """Turn what the operating system says about writing `path` into a message with a way out."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = _disk_full(path)
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            message = f"{path}: cannot be written ({error.strerror}). Give yourself permission or choose another place."
        elif error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG):
            message = f"{path}: cannot be written ({error.strerror}). Something else is in the way; move it."
        else:
            raise
        raise UserError(message) from error
    except Exception as error:
        # Libraries written in Rust (safetensors, tokenizers) raise their own types and keep the reason in the text.
        if os.strerror(errno.ENOSPC) in str(error):
            raise UserError(_disk_full(path)) from error
        raise


def _disk_full(path: Path) -> str:
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(existing).free / 1e6
    return f"{path}: the disk is full ({free:.1f} MB free). Nothing was written; free some space and run again."


def _sync_directory(path: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(path: Path) -> None:
    for file in path.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
