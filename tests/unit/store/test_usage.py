"""What a job took stands beside its log, and adds up over attempts."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from distalign.store import usage
from distalign.store.files import read_json
from distalign.store.usage import measured, read_usage, total, usage_file

SETTINGS = {"spec": {"rank": 8}, "version": 3}


def attempt(path: Path, how: BaseException | None = None, settings: Any = SETTINGS) -> None:
    try:
        with measured(path, "finetune", settings):
            time.sleep(0.02)
            if how is not None:
                raise how
    except (SystemExit, ValueError):
        assert how is not None


def outcomes(path: Path) -> list[str]:
    return [it["outcome"] for it in read_json(path)["attempts"]]


def test_time_and_memory_are_measured(tmp_path: Path) -> None:
    path = usage_file(tmp_path / "logs/finetune/ours/0.log")
    assert path == tmp_path / "logs/finetune/ours/0.usage.json"
    with measured(path, "finetune", SETTINGS):
        started = time.process_time()
        while time.process_time() - started < 0.1:
            pass
    found = read_usage(tmp_path / "logs/finetune/ours/0.log")
    assert found is not None
    assert 0.1 <= found["wall_seconds"] < 60
    assert 0.09 <= found["cpu_seconds"] < 60
    assert 10e6 < found["peak_memory_bytes"] < 100e9
    assert read_json(path)["rule"] == "finetune"


def test_peak_memory_is_that_of_the_job_and_not_of_who_started_it() -> None:
    code = "from distalign.store.usage import _peak_memory as peak\nbefore = peak()\n{}print(before, peak())"
    parent_memory = bytearray(400_000_000)  # counted by getrusage in a child, too
    parent_memory[::4096] = b"x" * len(parent_memory[::4096])
    sizes = {}
    for name, body in (("small", ""), ("large", "held = b'x' * 200_000_000\n")):
        printed = subprocess.run([sys.executable, "-c", code.format(body)], capture_output=True, text=True, check=True)
        before, after = map(int, printed.stdout.split())
        sizes[name] = after - before
        assert before < 300e6
    assert sizes["small"] < 50e6 < 190e6 < sizes["large"]


def test_attempts_add_up_until_one_completes(tmp_path: Path) -> None:
    path = tmp_path / "0.usage.json"
    for how in (SystemExit(143), ValueError(), None):
        attempt(path, how)
    assert outcomes(path) == ["stopped", "failed", "completed"]
    content = read_json(path)
    assert content["total"]["wall_seconds"] == pytest.approx(sum(it["wall_seconds"] for it in content["attempts"]))
    assert content["total"]["wall_seconds"] >= 0.06
    attempt(path)
    assert outcomes(path) == ["completed"]


def test_attempts_with_other_settings_do_not_count(tmp_path: Path) -> None:
    attempt(tmp_path / "u", SystemExit(1))
    attempt(tmp_path / "u", None, {"spec": {"rank": 16}, "version": 3})
    assert outcomes(tmp_path / "u") == ["completed"]


def test_a_damaged_file_of_an_earlier_attempt_is_no_obstacle(tmp_path: Path) -> None:
    for content in ("", "{}", '{"attempts": [], "settings"', "[1]"):
        (tmp_path / "u").write_text(content)
        attempt(tmp_path / "u")
        assert outcomes(tmp_path / "u") == ["completed"]


def test_no_room_for_it_fails_no_job(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "u").mkdir()
    attempt(tmp_path / "u")
    assert "what finetune took could not be written" in caplog.text


def test_unknown_stays_unknown() -> None:
    attempts = [
        {"outcome": "stopped", "wall_seconds": 1.5, "peak_memory_bytes": 7, "gpu_energy_joules": None},
        {"outcome": "completed", "wall_seconds": 2.0, "peak_memory_bytes": 5, "gpu_energy_joules": 3.0},
    ]
    assert total(attempts) == {"wall_seconds": 3.5, "peak_memory_bytes": 7, "gpu_energy_joules": None}
    assert total(attempts[1:])["gpu_energy_joules"] == 3.0
    assert read_usage(Path("nowhere/0.log")) is None


class FakeDriver:
    """Two cards of which the second reports no energy, as the driver's library answers."""

    def __init__(self, *joules: float | None) -> None:
        self.joules, self.open = joules, 0

    def nvmlInit_v2(self) -> int:
        self.open += 1
        return 0

    def nvmlShutdown(self) -> int:
        self.open -= 1
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = len(self.joules)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:
        handle._obj.value = index.value + 1
        return 0 if index.value < len(self.joules) else 2

    def nvmlDeviceGetHandleByUUID(self, name: Any, handle: Any) -> int:
        handle._obj.value = int(name.value.decode().removeprefix("GPU-"))
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, energy: Any) -> int:
        joules = self.joules[handle.value - 1]
        energy._obj.value = 0 if joules is None else int(joules * 1000)
        return 3 if joules is None else 0


@pytest.mark.parametrize(
    ("visible", "joules"),
    [
        (None, None),
        ("0", 1000.5),
        ("1", None),
        ("0,1", None),
        ("GPU-1", 1000.5),
        ("", None),
        ("7", None),
        ("0,2", 1007.5),
    ],
)
def test_energy_is_that_of_the_cards_of_the_job(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, joules: float | None
) -> None:
    driver = FakeDriver(1000.5, None, 7.0)
    monkeypatch.setattr(usage.ctypes, "CDLL", lambda name: driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert usage._gpu_joules() == joules
    assert driver.open == 0


def test_energy_is_what_was_used_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = FakeDriver(1000.5)
    monkeypatch.setattr(usage.ctypes, "CDLL", lambda name: driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    meter = usage.Meter()
    driver.joules = (1042.75,)
    assert meter.read()["gpu_energy_joules"] == 42.25


def test_without_a_driver_energy_is_unknown() -> None:
    assert usage._gpu_joules("libno-such-driver.so.1") is None
