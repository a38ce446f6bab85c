"""Secrets of the environment (HF_TOKEN, WANDB_API_KEY, ...): kept out of logs, provenance and archives."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

SECRET_NAME = re.compile(r"(?:^|_)(?:TOKEN|API_?KEY|SECRET|PASSWORD|PASSWD|ACCESS_KEY)$", re.IGNORECASE)
SHORTEST = 8  # characters: a shorter value (`1`, `none`) is no secret, and would blot out innocent text
# What is a secret wherever it comes from: a token of the hub, user and password in an address.
LOOKS_SECRET = re.compile(r"\bhf_[A-Za-z0-9]{20,}\b|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)")


def secrets_of_environment() -> dict[str, str]:
    """Value -> name of every environment variable that is called like a secret; longer values first."""
    found = {value: name for name, value in os.environ.items() if SECRET_NAME.search(name) and len(value) >= SHORTEST}
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def redact(text: str) -> str:
    """The text with every secret replaced by the name of its variable in brackets, or by `[secret]`."""
    for value, name in secrets_of_environment().items():
        text = text.replace(value, f"[{name}]")
    return LOOKS_SECRET.sub("[secret]", text)


def find_secret(content: Any, path: tuple[str | int, ...] = ()) -> tuple[tuple[str | int, ...], str] | None:
    """The first place in JSON-able content that holds a secret, and what the secret is called; None if there is none.

    A key that holds one counts as its value would.
    """
    if isinstance(content, Mapping):
        for key, value in content.items():
            if found := find_secret(str(key), (*path, "(a key)")) or find_secret(value, (*path, str(key))):
                return found
    elif isinstance(content, str):
        shown = redact(content)
        return None if shown == content else (path, _name(content))
    elif isinstance(content, Sequence) and not isinstance(content, bytes):
        for index, value in enumerate(content):
            if found := find_secret(value, (*path, index)):
                return found
    return None


def _name(content: str) -> str:
    known = next((name for value, name in secrets_of_environment().items() if value in content), None)
    return f"the value of the environment variable {known}" if known else "a token or a password"


class RedactingFormatter(logging.Formatter):
    """Formats log records, tracebacks included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return redact(super().format(record))
