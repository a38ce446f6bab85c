"""The smoke preset through a real SLURM, with two ranks: the same tables, byte for byte, as on this machine."""

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.faults import SMOKE, TWO_RANKS
from helpers.workflow import copy_project, snakemake
from slurm.cluster import cluster, missing

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        bool(missing()), reason=f"no SLURM here, lacking {', '.join(missing())}; see tests/slurm/cluster.py"
    ),
]


def tables(project: Path) -> dict[str, bytes]:
    """Every table in every format."""
    return {path.name: path.read_bytes() for path in sorted((project / "results/smoke/tables").iterdir())}


def test_same_tables_as_without(tmp_path: Path) -> None:
    """Two clones at once: one through SLURM, one without."""
    project = copy_project(tmp_path / "cluster" / "distalign")
    with cluster(tmp_path / "slurm") as environment:
        command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm-test", *SMOKE]
        environment = environment | {"PYTHONPATH": str(project / "lib"), "OMP_NUM_THREADS": "1"}
        run = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
        seen = ["squeue", "--states=all", "--noheader", "--format=%P %T %k"]
        jobs = subprocess.run(seen, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    finished = [line.split()[:2] for line in jobs]
    assert finished.count(["gpu", "COMPLETED"]) >= 3 + 4  # finetunings; all that is made of the images of a run
    assert sum("rule_run_smoke_" in job for job in jobs) == 4
    assert {state for _, state in finished} == {"COMPLETED"}
    local = copy_project(tmp_path / "local" / "distalign")
    result = snakemake(local, *SMOKE, *TWO_RANKS)
    assert result.returncode == 0, result.stdout + result.stderr
    assert tables(project) == tables(local)
