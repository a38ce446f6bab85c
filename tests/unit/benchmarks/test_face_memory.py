"""The measurement of memory over a face data set, at a size for tests."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "benchmarks/face_memory.py"


def test_both_parts_are_measured(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--images", "40", "80", "--folder", str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in said if line.startswith("|")][2:]
    assert [row[:2] for row in rows] == [[n, part] for n in ("40", "80") for part in ("reading", "an epoch's images")]
    assert all(0 < int(row[4].replace(",", "")) <= int(row[3].replace(",", "")) for row in rows)
    assert said[-1] == "goal, peak below 4,096 MB: reached"
    assert not list(tmp_path.iterdir())
