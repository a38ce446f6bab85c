"""Training state on disk: safetensors for the numbers, JSON for the rest, one SHA-256 over both. No pickle.

`checkpoint-000012.safetensors` is written first, `checkpoint-000012.json` with the hash last, so a checkpoint exists
from the moment its JSON does. Random-number states are stored as the uint8 tensors torch gives.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from distalign.config.differences import differences
from distalign.store.files import atomic_write_bytes, atomic_write_json

log = logging.getLogger(__name__)
SHOWN = 12  # settings that differ

State = tuple[dict[str, Tensor], dict[str, Any]]


def save_checkpoint(directory: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], keep: int = 2) -> Path:
    """Write the next checkpoint of a directory and drop all but the newest `keep`.

    Args:
        directory: where this run's checkpoints live.
        tensors: any shapes, types and devices; stored from the CPU.
        meta: JSON-able; must have "fingerprint", and should have the "spec" it is the fingerprint of, so that a later
            mismatch can be explained.
        keep: how many checkpoints stay; with fewer than 2 a torn newest one has nothing to fall back on.

    Returns:
        the JSON file, which names the checkpoint.

    Raises:
        UserError: the disk is full or not writable; the checkpoints before stay as they are.
    """
    if "fingerprint" not in meta:
        raise ValueError("a checkpoint's meta needs the run's fingerprint")
    existing = _stamps(directory)
    number = _number(existing[-1]) + 1 if existing else 0
    stamp = Path(directory) / f"checkpoint-{number:06d}.json"
    # A clone each, because safetensors refuses tensors that share memory.
    data = safetensors.torch.save(
        {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    )
    atomic_write_bytes(stamp.with_suffix(".safetensors"), data)
    atomic_write_json(stamp, {"sha256": _hash(data, meta), "meta": dict(meta)})
    for old in [*existing, stamp][:-keep]:
        old.unlink(missing_ok=True)
        old.with_suffix(".safetensors").unlink(missing_ok=True)
    return stamp


def load_checkpoint(directory: Path, fingerprint: str, spec: Mapping[str, Any] | None = None) -> State | None:
    """Read the newest whole checkpoint, if it belongs to this run.

    A torn or damaged checkpoint is passed over, with a warning, for the one before. One with another fingerprint is
    refused and ends the search: the run's settings changed, so it starts anew, and a logged line says which.

    Args:
        directory: where the checkpoints live; may not exist.
        fingerprint: of the run that wants to go on.
        spec: what it is the fingerprint of, to name the settings that differ.

    Returns:
        tensors on the CPU and meta, or None to start from the beginning.
    """
    for stamp in reversed(_stamps(directory)):
        state = _read(stamp)
        if state is None:
            log.warning("%s is incomplete or damaged; trying the checkpoint before it", stamp)
            continue
        found = state[1]["fingerprint"]
        if found == fingerprint:
            return state
        log.warning(
            "%s belongs to other settings (fingerprint %.12s, this run: %.12s)%s; training starts anew",
            stamp, found, fingerprint, _differences(state[1].get("spec"), spec),
        )  # fmt: skip
        return None
    return None


def _stamps(directory: Path) -> list[Path]:
    return sorted(Path(directory).glob("checkpoint-*.json"), key=_number)


def _number(stamp: Path) -> int:
    return int(stamp.stem.removeprefix("checkpoint-"))


def _hash(data: bytes, meta: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(data)
    digest.update(json.dumps(meta, sort_keys=True).encode())
    return digest.hexdigest()


def _read(stamp: Path) -> State | None:
    """Tensors and meta of one checkpoint, or None when anything about it is wrong."""
    try:
        content = json.loads(stamp.read_text(encoding="utf-8"))
        data = stamp.with_suffix(".safetensors").read_bytes()
        if content["sha256"] != _hash(data, content["meta"]):
            return None
        return safetensors.torch.load(data), content["meta"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _differences(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str:
    """The settings in which two specs differ, with their values, if both are known."""
    if old is None or new is None:
        return ""
    found = [str(difference) for difference in differences(old, new)]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f": changed {', '.join(found[:SHOWN])}{more}" if found else ""
