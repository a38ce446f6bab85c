"""How things are put in print."""

from collections.abc import Mapping, Sequence
from typing import Any

from distalign.secrets import redact

SHORT = 12  # hex digits of a hash


def say(lines: Sequence[str]) -> None:
    """Print lines, without secrets and without what would steer a terminal."""
    print("\n".join(printable(redact(line)) for line in lines))


def printable(text: str) -> str:
    r"""The text in one line: control characters, line ends included, as `\x1b`."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def grid(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Rows of cells as lines with aligned columns."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in shown
    ]


def short(digest: str) -> str:
    """The first digits of a hash."""
    return digest[:SHORT]


def real(value: float | None) -> str:
    """A number to compare by eye; a dash for none."""
    return "–" if value is None else f"{value:.4f}"


def seconds(value: float) -> str:
    """`850 ms`, `12.3 s`, `4 min 05 s`, `2 h 03 min`."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """Bytes as `812 B`, `1.4 MB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def code(record: Mapping[str, Any]) -> str:
    """The commit of a provenance record."""
    found = record.get("code") or {}
    if not found.get("commit"):
        return "not a git checkout"
    return f"commit {short(found['commit'])}{', with changes' if found.get('modified') else ''}"


def machine(record: Mapping[str, Any]) -> str:
    """The hardware of a provenance record."""
    found = record.get("hardware") or {}
    parts = [f"{found.get('cpus')} × {found.get('processor') or found.get('machine')}", *(found.get("gpus") or [])]
    return ", ".join(parts) if found else "not recorded"


def usage(total: Mapping[str, Any] | None) -> str:
    """What a job took, as `store.usage` measured it."""
    if total is None:
        return "not measured here"
    parts = [seconds(total["wall_seconds"])]
    if total.get("peak_memory_bytes") is not None:
        parts.append(f"peak memory {size(total['peak_memory_bytes'])}")
    if total.get("peak_gpu_memory_bytes") is not None:
        parts.append(f"on the GPU {size(total['peak_gpu_memory_bytes'])}")
    if total.get("gpu_energy_joules") is not None:
        parts.append(f"energy of the GPU {total['gpu_energy_joules'] / 3600:.2f} Wh")
    return ", ".join(parts)
