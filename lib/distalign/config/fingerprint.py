"""What makes two specifications the same: canonical JSON and its SHA-256."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

# How fast, not what: these keys may change between two attempts at the same artefact.
EXECUTION_KEYS = frozenset({"micro_batch", "keep_graph", "checkpoint_every", "compile"})


def fingerprint(specification: Any) -> str:
    """64 hexadecimal digits that depend on the meaning of a specification only.

    Order of keys, unset keys (None) and `EXECUTION_KEYS` leave it unchanged, so that adding an optional key to the
    models, or another micro-batch, makes nothing stale.
    """
    return hashlib.sha256(canonical_json(specification).encode()).hexdigest()


def canonical_json(specification: Any) -> str:
    """JSON with sorted keys, no blanks, integral floats as integers, and without None and `EXECUTION_KEYS`."""
    return json.dumps(
        _meaning(specification), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _meaning(value: Any) -> Any:
    if value is None or isinstance(value, str | int):  # first what there is most of
        return value
    if isinstance(value, Mapping):
        kept = {key: _meaning(item) for key, item in value.items() if key not in EXECUTION_KEYS}
        return {key: item for key, item in kept.items() if item is not None}
    if isinstance(value, Sequence):
        return [_meaning(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
