"""Pretrained models from a hub, at a pinned commit: the files that are needed, verified, in the hub's own cache.

Everything that huggingface_hub takes from the environment holds: HF_HOME and HF_HUB_CACHE (where the cache is),
HF_ENDPOINT (a mirror), HF_HUB_OFFLINE, HF_TOKEN. Without a network, or offline, the cache is all there is.
"""

import hashlib
import logging
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import tqdm

from distalign.errors import UserError
from distalign.store.files import read_json, sha256_file
from distalign.store.hub_errors import Unreachable, explained
from distalign.store.layouts import MODEL_INDEX, check_pipeline, needed_files

log = logging.getLogger(__name__)

LOG_EVERY = 30.0  # seconds between lines while one file is downloaded


@dataclass(frozen=True)
class Fetched:
    """A model in the cache of the hub.

    Attributes:
        facts: Which, from where, and its licence as its card says.
        files: Where each file is, by the name its loader reads it under.
        sums: SHA-256 of each file.
    """

    facts: dict[str, Any]
    files: dict[str, Path]
    sums: dict[str, str]


@dataclass(frozen=True)
class _Entry:
    """A file of a repository: its size in bytes, and its SHA-256 or (not in LFS) its git SHA-1, where it is known."""

    size: int
    digest: str | None


@dataclass(frozen=True)
class _Listing:
    """What there is of a model: in its repository, or, where the hub cannot be reached for a reason, in the cache."""

    entries: dict[str, _Entry]
    licence: str | None = None
    unreachable: Unreachable | None = None

    def needed(self, subfolder: str | None, variant: str | None, name: str) -> dict[str, str]:
        """The files that are needed, by the name their loader reads them under."""
        prefix = f"{PurePosixPath(subfolder)}/" if subfolder else ""
        inside = [file.removeprefix(prefix) for file in self.entries if file.startswith(prefix)]
        try:
            if not inside:
                raise UserError(f"{name}: no folder {subfolder}.")
            return {target: prefix + file for target, file in needed_files(inside, variant, name).items()}
        except UserError as error:
            raise (UserError(f"{self.unreachable} (In the cache: {error})") if self.unreachable else error) from None


def fetch(model: str, revision: str, subfolder: str | None = None, variant: str | None = None) -> Fetched:
    """Download what is needed of a model, unless the cache has it, and verify all of it.

    A connection that breaks is resumed where it was; a file that is complete is not downloaded again by the next run.

    Args:
        model: `owner/name`.
        revision: Full commit hash.
        subfolder: The folder of the repository that holds the model, if not all of it.
        variant: Suffix of the weights files (`fp16`).

    Raises:
        UserError: no network and not in the cache, no such model or revision, access denied, not enough space, a file
            cut off or with another checksum than the hub says, or a model that this project cannot use.
    """
    name = f"{model} at {revision[:12]}"
    listing = _listing(model, revision)
    wanted = listing.needed(subfolder, variant, name)
    _announce(model, revision, listing, list(wanted.values()))
    files, sums = {}, {}
    for number, (target, file) in enumerate(wanted.items(), 1):
        entry = listing.entries[file]
        log.info("%d/%d: %s, %s", number, len(wanted), file, size_in_words(entry.size))
        with explained(model, revision, file):
            offline = listing.unreachable is not None
            path = hf_hub_download(model, file, revision=revision, tqdm_class=_Progress, local_files_only=offline)
        files[target] = Path(path)
        sums[target] = _verified(files[target], entry, f"{name}: {file}")
        if target == MODEL_INDEX:
            check_pipeline(read_json(files[target]), name)
    facts = {"id": model, "revision": revision, "subfolder": subfolder, "variant": variant, "licence": listing.licence}
    return Fetched({key: value for key, value in facts.items() if value is not None}, files, sums)


def size_in_words(size: int) -> str:
    """A number of bytes as people read it: `3.44 GB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"


def _listing(model: str, revision: str) -> _Listing:
    try:
        with explained(model, revision, "the list of files"):
            info = HfApi().model_info(model, revision=revision, files_metadata=True)
    except Unreachable as error:
        cached = _cached(model, revision)
        if not cached:
            raise
        log.warning("%s at %s: without the hub, from the cache %s", model, revision[:12], _cache())
        return _Listing(cached, unreachable=error)
    entries = {
        it.rfilename: _Entry(it.lfs.size, it.lfs.sha256) if it.lfs else _Entry(it.size or 0, it.blob_id)
        for it in info.siblings or ()
    }
    card: Any = info.card_data or {}
    licence = card.get("license_name") or card.get("license") or "unknown"
    return _Listing(entries, f"{licence}, to be accepted on the hub before a download" if info.gated else licence)


def _cached(model: str, revision: str) -> dict[str, _Entry]:
    """The files of a commit in the cache; the cache names the files behind its links by the hub's checksums."""
    folder = _cache() / repo_folder_name(repo_id=model, repo_type="model") / "snapshots" / revision
    found = {}
    for file in sorted(it for it in folder.rglob("*") if it.is_file()):
        digest = file.resolve().name
        is_digest = re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", digest)
        found[file.relative_to(folder).as_posix()] = _Entry(file.stat().st_size, digest if is_digest else None)
    return found


def _cache() -> Path:
    return Path(constants.HF_HUB_CACHE)


def _announce(model: str, revision: str, listing: _Listing, files: Sequence[str]) -> None:
    """Log licence, number and size of the files, and check that the disk has room for those that are not here."""
    if listing.unreachable:
        return
    here = _cached(model, revision)
    total = sum(listing.entries[file].size for file in files)
    missing = sum(listing.entries[file].size for file in files if file not in here)
    log.info("%s at %s, licence: %s. Its terms: %s/%s", model, revision, listing.licence, constants.ENDPOINT, model)
    size, rest = size_in_words(total), size_in_words(missing)
    log.info("%d files, %s, of which %s are to be downloaded into %s", len(files), size, rest, _cache())
    disk = next(parent for parent in (_cache(), *_cache().parents) if parent.exists())
    free = shutil.disk_usage(disk).free
    if missing > free:
        raise UserError(
            f"{model}: {rest} to download, but {disk} has {size_in_words(free)} free. Free some space, or set HF_HOME "
            "to a directory on a larger disk."
        )


def _verified(path: Path, entry: _Entry, name: str) -> str:
    """SHA-256 of a downloaded file, once its size and checksum are what the hub says."""
    size, sha256 = path.stat().st_size, sha256_file(path)
    found = sha256
    if entry.digest and len(entry.digest) == 40:
        found = hashlib.sha1(b"blob %d\0" % size + path.read_bytes(), usedforsecurity=False).hexdigest()
    if size != entry.size or (entry.digest and found != entry.digest):
        raise UserError(
            f"{name}: {size} bytes with checksum {found[:12]}..., but the hub says {entry.size} bytes with "
            f"{(entry.digest or found)[:12]}.... Delete {path.resolve()} and run again; if it stays, another hub or "
            "mirror (HF_ENDPOINT) may have the right file."
        )
    return sha256


class _Progress(tqdm):
    """The hub's progress bar, which also writes a line into the log from time to time."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._done, self._all = settings.get("initial") or 0, settings.get("total") or 0
        self._next = time.monotonic() + LOG_EVERY

    def update(self, n: float | None = 1) -> bool | None:
        """Count `n` more bytes."""
        self._done += n or 0
        if time.monotonic() >= self._next:
            log.info("%s of %s", size_in_words(int(self._done)), size_in_words(int(self._all)))
            self._next = time.monotonic() + LOG_EVERY
        return super().update(n)
