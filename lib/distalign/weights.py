"""Bring pretrained weights to where the jobs expect them: shipped and verified, from a directory, or from a hub."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distalign.errors import UserError
from distalign.miniworld.shipped import MANIFEST, install_component, read_manifest
from distalign.store.files import atomic_directory


def obtain(weights: Mapping[str, Any], directory: Path, root: Path) -> None:
    """Fill `directory` with a pretrained model.

    Shipped models are copied and checked against the SHA-256 sums of their manifest. Directories and models of a hub
    are linked, file by file: they can be large.

    Args:
        weights: The settings `Weights` of a preset as a dictionary.
        directory: Where to; it appears when it is complete.
        root: The repository, which relative paths start from.

    Raises:
        UserError: no such model, a wrong checksum, or no network.
    """
    if weights["source"] == "shipped":
        shipped, name = _component(root / weights["path"])
        with atomic_directory(directory) as made:
            install_component(name, shipped, made)
    elif weights["source"] == "hub":
        from distalign.encoders.hub import fetch

        folder = fetch(weights["id"], weights["revision"]) / (weights.get("subfolder") or "")
        _link(folder, directory, f"{weights['id']} at {weights['revision']}")
    else:
        _link(root / weights["path"], directory, weights["path"])


def checksums(weights: Mapping[str, Any], root: Path) -> dict[str, str]:
    """SHA-256 of each file of a shipped model as its manifest has them: what is made of other weights is stale.

    Empty for models that are not shipped, and where the manifest does not know them (`obtain` says so).
    """
    if weights["source"] != "shipped":
        return {}
    shipped, name = _component(root / weights["path"])
    if not (shipped / MANIFEST).exists():
        return {}
    components = read_manifest(shipped)["components"]
    return dict(components.get(name, {}).get("sha256", {}))


def _component(source: Path) -> tuple[Path, str]:
    """The directory with the manifest of a shipped model, and the model's name in it."""
    shipped = next((parent for parent in source.parents if (parent / MANIFEST).exists()), source.parent)
    return shipped, source.relative_to(shipped).as_posix()


def _link(source: Path, directory: Path, name: str) -> None:
    """A directory of links to the files of `source`, with its folders."""
    if not source.is_dir():
        raise UserError(f"{name}: no such directory. Put the model there, or name another place in the preset.")
    with atomic_directory(directory) as made:
        shutil.copytree(source.resolve(), made, copy_function=_symlink, dirs_exist_ok=True)


def _symlink(source: str, target: str) -> None:
    Path(target).symlink_to(Path(source).resolve())
