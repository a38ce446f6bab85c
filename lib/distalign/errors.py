"""Errors that are shown to users without a traceback."""

import errno
import os
import tempfile
from pathlib import Path

# How torch, cuBLAS and the operating system say that memory is out, in errors that have no type of their own.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "_STATUS_ALLOC_FAILED", os.strerror(errno.ENOMEM))


class UserError(Exception):
    """Says which file or key is wrong, what was found, and what to do."""


def exhausted(error: BaseException) -> str | None:
    """What to do about an error that means no memory or no disk space is left; None for any other error."""
    text = str(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or os.strerror(errno.ENOSPC) in text:
        name = getattr(error, "filename", None)
        where = Path(os.fsdecode(name)).absolute() if isinstance(name, str | bytes) else None
        shown = where or f"{Path.cwd()} or {tempfile.gettempdir()}"
        return (
            f"{shown}: the disk is full. What was finished is kept; free some space and run again. "
            "TMPDIR says where temporary files go."
        )
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError | OSError) and _says(text, OUT_OF_MEMORY)):
        return (
            f"out of memory ({text.splitlines()[0] if text else type(error).__name__}). Lower micro_batch of the "
            "preset (sample: images without gradient, gradient: with; instead of auto, numbers), which changes no "
            "result, and run again; or give the job more: mem_mb in set-resources of the profile, or a larger GPU."
        )
    return None


def _says(text: str, phrases: tuple[str, ...]) -> bool:
    return any(phrase.lower() in text.lower() for phrase in phrases)
