"""Bring pretrained weights to where the jobs expect them: shipped and verified, from a directory, or from a hub."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distalign.errors import UserError
from distalign.miniworld.shipped import MANIFEST, install_component, read_manifest
from distalign.store.files import atomic_directory, read_json
from distalign.store.layouts import MODEL_INDEX, check_pipeline, needed_files
from distalign.store.pretrained import write_record


def obtain(weights: Mapping[str, Any], directory: Path, root: Path) -> None:
    """Fill `directory` with a pretrained model.

    Shipped models are copied and checked against the SHA-256 sums of their manifest. Files of directories and hubs are
    linked, those that are needed: they can be large. Face embeddings of OpenSphere are converted.

    Args:
        weights: The settings `Weights` of a preset as a dictionary.
        directory: Where to; it appears when it is complete.
        root: The repository, which relative paths start from.

    Raises:
        UserError: no such model, one that cannot be used, a wrong checksum, or no network.
    """
    with atomic_directory(directory) as made:
        SOURCES[weights["source"]](weights, made, root)


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


def _shipped(weights: Mapping[str, Any], made: Path, root: Path) -> None:
    shipped, name = _component(root / weights["path"])
    install_component(name, shipped, made)


def _directory(weights: Mapping[str, Any], made: Path, root: Path) -> None:
    source, name = root / weights["path"], weights["path"]
    if not source.is_dir():
        raise UserError(f"{name}: no such directory. Put the model there, or name another place in the preset.")
    files = [file.relative_to(source).as_posix() for file in source.rglob("*") if file.is_file()]
    if MODEL_INDEX in files:
        check_pipeline(read_json(source / MODEL_INDEX), name)
    needed = needed_files(files, weights.get("variant"), name)
    if not needed:
        raise UserError(f"{name}: no model in it. Put the model there, or name another place in the preset.")
    _link({target: source / file for target, file in needed.items()}, made)


def _hub(weights: Mapping[str, Any], made: Path, root: Path) -> None:
    from distalign.store.hub import fetch  # the hub's client is needed here only

    fetched = fetch(weights["id"], weights["revision"], weights.get("subfolder"), weights.get("variant"))
    _link(fetched.files, made)
    write_record(made, fetched.facts, fetched.sums)


def _opensphere(weights: Mapping[str, Any], made: Path, root: Path) -> None:
    from distalign.faces.opensphere import convert_opensphere  # takes seconds: it needs torch

    convert_opensphere(root / weights["path"], made)


SOURCES: dict[str, Callable[[Mapping[str, Any], Path, Path], None]] = {
    "shipped": _shipped,
    "directory": _directory,
    "hub": _hub,
    "opensphere": _opensphere,
}


def _component(source: Path) -> tuple[Path, str]:
    """The directory with the manifest of a shipped model, and the model's name in it."""
    shipped = next((parent for parent in source.parents if (parent / MANIFEST).exists()), source.parent)
    return shipped, source.relative_to(shipped).as_posix()


def _link(files: Mapping[str, Path], made: Path) -> None:
    """Links to files, by their place in a directory."""
    for target, file in files.items():
        (made / target).parent.mkdir(parents=True, exist_ok=True)
        (made / target).symlink_to(file.resolve())
