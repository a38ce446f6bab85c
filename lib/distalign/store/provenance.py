"""Where a file came from: settings, inputs, code, versions, hardware. No dates: the same work gives the same bytes.

What making it took (time, memory, energy) differs from one time to the next and stands elsewhere: `store.usage`.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from distalign.config.fingerprint import fingerprint
from distalign.config.problems import yaml_path
from distalign.errors import UserError
from distalign.secrets import find_secret
from distalign.store.files import atomic_write_json, read_json, sha256_file, sha256_tree
from distalign.store.pretrained import RECORD
from distalign.store.stages import STAGES

PACKAGES = (
    "distalign", "torch", "torchvision", "diffusers", "transformers", "peft", "open_clip_torch", "safetensors",
    "numpy", "scipy", "pyarrow", "pillow", "matplotlib", "mtcnn", "snakemake",
)  # fmt: skip
REPOSITORY = Path(__file__).resolve().parents[3]
LOCK = "envs/requirements.txt"
BELOW = 2  # parts of a path before what lies below `results/{preset}/`


def collect(
    stage: str,
    spec: Mapping[str, Any],
    inputs: Mapping[str, Path] | None = None,
    seeds: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Gather what is needed to make a file again.

    Args:
        stage: a key of `stages.STAGES`.
        spec: the settings the file depends on; its fingerprint is recorded, and itself.
        inputs: files or directories by name; recorded by SHA-256, not by place.
        seeds: seeds by name.

    Returns:
        JSON-able dict.

    Raises:
        UserError: a setting holds a secret of the environment.
    """
    if secret := find_secret(spec):
        place, what = secret
        raise UserError(
            f"{yaml_path(place)}: holds {what}, which would be written into every file that depends on it. Take it out "
            "of the configuration; programs read it from the environment."
        )
    return {
        "stage": stage,
        "stage_version": STAGES[stage],
        "fingerprint": fingerprint(spec),
        "spec": dict(spec),
        "inputs": {name: sha256_input(path) for name, path in sorted((inputs or {}).items())},
        "seeds": dict(seeds or {}),
        "code": _code(),
        "lock": _lock(),
        "versions": _versions(),
        "hardware": _hardware(),
    }


def by_place(files: Iterable[str | Path]) -> dict[str, Path]:
    """Inputs named by their place below `results/{preset}/`: `bias/ours_gender/0/occupations.parquet`."""
    return {Path(*Path(file).parts[BELOW:]).as_posix(): Path(file) for file in files}


def write_provenance(path: Path, provenance: Mapping[str, Any]) -> None:
    """Write provenance beside files that cannot carry it inside."""
    atomic_write_json(path, provenance)


def sha256_input(path: Path, stamped: bool = False) -> str:
    """SHA-256 of an input; `stamped` as for `sha256_tree`.

    Of a model that was fetched, that of the sums in its record: its files can be 10 GB, and are verified.
    """
    record = Path(path) / RECORD
    return fingerprint(read_json(record)["files"]) if record.is_file() else sha256_tree(path, stamped)


@cache
def _code() -> dict[str, Any]:
    """The commit this code runs from, and whether tracked files differ from it; nulls outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit or None, "modified": None if changed is None else bool(changed)}


def _git(*arguments: str) -> str | None:
    if not (REPOSITORY / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(REPOSITORY), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


@cache
def _lock() -> str | None:
    """SHA-256 of the environment's lock; null where the library is used without its repository."""
    lock = REPOSITORY / LOCK
    return sha256_file(lock) if lock.is_file() else None


@cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


@cache
def _hardware() -> dict[str, Any]:
    """Kind of machine, never its name. A GPU is named only if torch is in use: importing it takes seconds."""
    hardware: dict[str, Any] = {"machine": platform.machine(), "processor": _processor(), "cpus": os.cpu_count()}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        hardware["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return hardware


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
