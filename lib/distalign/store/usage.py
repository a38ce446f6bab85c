"""What a job took: time, memory and the energy its GPUs report, in a file beside its log.

These numbers differ from one time to the next, so they are not in provenance, which is part of files that have the same
bytes whenever they are made. `distalign explain` shows both.
"""

import ctypes
import logging
import os
import re
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distalign.config.fingerprint import fingerprint
from distalign.errors import UserError
from distalign.store.files import atomic_write_json, read_json

log = logging.getLogger(__name__)
SUFFIX = ".usage.json"
NVML = "libnvidia-ml.so.1"  # comes with NVIDIA's driver
COMPLETED, STOPPED, FAILED = "completed", "stopped", "failed"


@contextmanager
def measured(path: Path, rule: str, settings: Any) -> Iterator[None]:
    """Measure the block and write what it took to `path`, however it ends.

    The attempts at one artefact are added up: those before, if none of them completed and they had the same settings.
    An attempt that was killed outright (SIGKILL, a power cut) left no measurement.

    Args:
        path: `usage_file` of the job's log.
        rule: the job's rule.
        settings: what its result depends on.
    """
    meter, outcome = Meter(), FAILED
    try:
        yield
        outcome = COMPLETED
    except SystemExit:
        outcome = STOPPED
        raise
    finally:
        stamp = fingerprint(settings)
        attempts = [*_earlier(path, stamp), {"outcome": outcome, **meter.read()}]
        try:
            atomic_write_json(path, {"rule": rule, "settings": stamp, "total": total(attempts), "attempts": attempts})
        except (UserError, OSError) as error:  # what the job made is there all the same
            log.warning("what %s took could not be written: %s", rule, error)


class Meter:
    """Counts from its making on."""

    def __init__(self) -> None:
        self.started, self.cpu, self.energy = time.monotonic(), _cpu_seconds(), _gpu_joules()

    def read(self) -> dict[str, Any]:
        """Seconds, bytes and joules since then.

        Memory is the peak of the largest process, this one or one it started. GPU memory is what torch allocated in
        this process. Energy is of the cards the job was given, whoever else uses them. Null: not known.
        """
        energy = _gpu_joules()
        spent = None if energy is None or self.energy is None else round(energy - self.energy, 3)
        return {
            "wall_seconds": round(time.monotonic() - self.started, 3),
            "cpu_seconds": round(_cpu_seconds() - self.cpu, 3),
            "peak_memory_bytes": _peak_memory(),
            "peak_gpu_memory_bytes": _peak_gpu_memory(),
            "gpu_energy_joules": spent,
        }


def total(attempts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums of seconds and joules, the largest of the memories; null where an attempt does not know."""
    columns: dict[str, list[Any]] = {}
    for attempt in attempts:
        for name, value in attempt.items():
            columns.setdefault(name, []).append(value)
    return {
        name: None if None in values else max(values) if "memory" in name else round(sum(values), 3)
        for name, values in columns.items()
        if name != "outcome"
    }


def usage_file(job_log: Path) -> Path:
    """Where the usage of the job with this log stands."""
    return Path(job_log).with_name(Path(job_log).stem + SUFFIX)


def read_usage(job_log: Path) -> dict[str, Any] | None:
    """What the job with this log took in all (`total`); None where it was not measured."""
    path = usage_file(job_log)
    if not path.is_file():
        return None
    found: dict[str, Any] = read_json(path)["total"]
    return found


def _earlier(path: Path, stamp: str) -> list[dict[str, Any]]:
    try:
        content = read_json(path)
        attempts: list[dict[str, Any]] = content["attempts"]
        same = content["settings"] == stamp and all(attempt["outcome"] != COMPLETED for attempt in attempts)
    except (UserError, OSError, KeyError, TypeError):
        return []
    return attempts if same else []


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(it.ru_utime + it.ru_stime for it in used)


def _peak_memory() -> int:
    """Of this process since it began its program (what getrusage says includes the one that started it)."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    try:
        match = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        match = None
    own = int(match[1]) if match else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return max(own * 1024, children)


def _peak_gpu_memory() -> int | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return max(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))


def _gpu_joules(library: str = NVML) -> float | None:
    """Energy the job's cards have used since their driver was loaded; None without cards, or where one does not say."""
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        return None
    if nvml.nvmlInit_v2() != 0:
        return None
    try:
        energies = [_joules(nvml, handle) for handle in _cards(nvml)]
    finally:
        nvml.nvmlShutdown()
    return sum(energies) if energies and None not in energies else None  # type: ignore[arg-type]


def _cards(nvml: Any) -> list[ctypes.c_void_p | None]:
    """Handles of the cards of CUDA_VISIBLE_DEVICES, by number or UUID, or of all; None for one that is not found."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        count = ctypes.c_uint()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        names = [str(index) for index in range(count.value)]
    else:
        names = [name.strip() for name in visible.split(",") if name.strip()]
    handles: list[ctypes.c_void_p | None] = []
    for name in names:
        handle = ctypes.c_void_p()
        if name.isdigit():
            status = nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(name)), ctypes.byref(handle))
        else:
            status = nvml.nvmlDeviceGetHandleByUUID(ctypes.c_char_p(name.encode()), ctypes.byref(handle))
        handles.append(handle if status == 0 else None)
    return handles


def _joules(nvml: Any, handle: ctypes.c_void_p | None) -> float | None:
    millijoules = ctypes.c_ulonglong()
    if handle is None or nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)) != 0:
        return None
    return millijoules.value / 1000
