"""Stable seeds: a pure function of names and numbers, the same in every process, on every machine."""

import hashlib
import json

SEED_BITS = 63


def stable_seed(*parts: str | int) -> int:
    """Hash `parts` to a seed in [0, 2**63 - 1].

    Python's own `hash` of a string differs from process to process, so images meant to share their noise would not.
    The parts are hashed as canonical JSON: ("a", "bc") and ("ab", "c"), and 1 and "1", give different seeds.
    """
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, (str, int)):
            raise TypeError(f"a seed is made of strings and integers, not {type(part).__name__} ({part!r})")
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    digest = hashlib.blake2b(text.encode("ascii"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - SEED_BITS)
