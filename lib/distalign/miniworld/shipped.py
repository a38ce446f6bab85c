"""The trained weights that come with the repository: packed once, verified by checksum whenever they are used."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distalign.errors import UserError
from distalign.store.files import atomic_write_json, sha256_file

MANIFEST = "manifest.json"


def read_manifest(root: Path) -> dict[str, Any]:
    """The manifest of shipped components.

    Raises:
        UserError: no readable manifest in `root`.
    """
    path = Path(root) / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot read the manifest of the shipped weights ({error}); restore it with `git checkout`."
        ) from None
    return manifest


def install_component(name: str, root: Path, directory: Path) -> dict[str, Any]:
    """Copy one shipped component to `directory` after checking every file; returns its manifest entry.

    Raises:
        UserError: unknown component, or a file missing or with another checksum.
    """
    components = read_manifest(root)["components"]
    if name not in components:
        raise UserError(f"{Path(root) / MANIFEST}: no component {name!r}; there are {', '.join(sorted(components))}.")
    source = Path(root) / name
    for file, expected in components[name]["sha256"].items():
        if not (source / file).is_file():
            raise UserError(f"{source / file}: missing; restore it with `git checkout -- {source}`.")
        found = sha256_file(source / file)
        if found != expected:
            raise UserError(
                f"{source / file}: sha256 {found[:12]}... is not the manifest's {expected[:12]}...; restore the "
                f"file with `git checkout -- {source}`, or train new weights with `snakemake pretrain`."
            )
    for file in components[name]["sha256"]:
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file, directory / file)
    entry: dict[str, Any] = components[name]
    return entry


def pack_component(name: str, directory: Path, root: Path, facts: Mapping[str, Any]) -> None:
    """Copy a trained component into the repository and enter it in the manifest.

    Floating-point weights are stored in half precision. `facts`: command, commit, seed, steps, measured quality.
    """
    target = Path(root) / name
    shutil.rmtree(target, ignore_errors=True)
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        copy = target / path.relative_to(directory)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            _save_half(path, copy)
        else:
            shutil.copyfile(path, copy)
    path = Path(root) / MANIFEST
    manifest = read_manifest(root) if path.exists() else {"components": {}}
    checksums = {str(p.relative_to(target)): sha256_file(p) for p in sorted(target.rglob("*")) if p.is_file()}
    manifest["components"][name] = {**facts, "sha256": checksums}
    manifest["components"] = dict(sorted(manifest["components"].items()))
    atomic_write_json(path, manifest)


def enter_quality(root: Path, measured: Mapping[str, Any], quality: Mapping[str, float]) -> None:
    """Enter how the shipped weights were measured, and what came out."""
    manifest = read_manifest(root) | {"measured": dict(measured), "quality": dict(quality)}
    atomic_write_json(Path(root) / MANIFEST, manifest)


def _save_half(source: Path, target: Path) -> None:
    import torch  # takes seconds, and installing needs none of it
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(source, "pt") as file:
        header = file.metadata()
    tensors = {k: v.half() if v.dtype == torch.float32 else v for k, v in load_file(source).items()}
    save_file(tensors, target, header)
