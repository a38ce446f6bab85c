"""What goes wrong on a cluster, each while two ranks finetune through a real SLURM: the tables are the same bytes."""

import errno
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from helpers.faults import (
    TWO_RANKS,
    adapter,
    assert_whole,
    checkpoints,
    copy_of,
    log_of,
    prepare,
    run,
    small_study,
    started,
    tables,
    wait_until,
)
from slurm.cluster import cancel_jobs, cluster, missing, reboot_node, restart_controller

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.faults,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        bool(missing()), reason=f"no SLURM here, lacking {', '.join(missing())}; see tests/slurm/cluster.py"
    ),
]
ITERATIONS = 24
THROUGH_SLURM = ("tables", "--workflow-profile", "profiles/slurm-test")
NODE = socket.gethostname().partition(".")[0]


class Slurm(NamedTuple):
    """A running cluster: where it lives and what its clients need."""

    folder: Path
    environment: dict[str, str]

    def ask(self, *command: str) -> str:
        """What a command of SLURM prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def node(self) -> str:
        """The state of the one node; without what marks it as not answering just now."""
        return self.ask("sinfo", "--noheader", "--format=%T").split()[0].rstrip("*")

    def finetuning(self, *states: str) -> list[str]:
        """The numbers of the finetuning jobs in these states."""
        listed = self.ask("squeue", "--noheader", f"--states={','.join(states)}", "--format=%i %k").splitlines()
        return [line.split()[0] for line in listed if "rule_finetune" in line]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    folder = tmp_path_factory.mktemp("cluster") / "slurm"
    with cluster(folder) as environment:
        yield Slurm(folder, environment | {"OMP_NUM_THREADS": "1"})


@pytest.fixture
def slurm(running: Slurm) -> Iterator[Slurm]:
    """The cluster; a test that fails leaves no job in it that would hinder the next."""
    yield running
    cancel_jobs(running.environment)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = small_study(tmp_path_factory.mktemp("prepared") / "distalign", ITERATIONS)
    prepare(project)
    return project


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = copy_of(prepared, tmp_path_factory.mktemp("undisturbed") / "distalign")
    run(project, "tables", *TWO_RANKS)
    return project


def under_way(slurm: Slurm, project: Path, process: "subprocess.Popen[bytes]") -> str:
    """Wait until the finetuning has saved twice; the number of its job."""

    def look() -> bool:
        assert process.poll() is None, (project / "log.txt").read_text()[-3000:]
        return checkpoints(project) >= 2

    wait_until(look, "the second checkpoint")
    (number,) = slurm.finetuning("RUNNING")
    return number


def ends_well(project: Path, process: "subprocess.Popen[bytes]", undisturbed: Path) -> str:
    """Wait for the workflow; compare everything; return what Snakemake said."""
    status = process.wait(timeout=600)
    said = (project / "log.txt").read_text()
    assert status == 0, said[-5000:]
    assert adapter(project) == adapter(undisturbed)
    assert tables(project) == tables(undisturbed)
    assert assert_whole(project / "results") >= 20
    return said


@pytest.mark.injects("scancel of a running finetuning, through SLURM")
def test_scancel_of_a_running_finetuning(slurm: Slurm, prepared: Path, undisturbed: Path, tmp_path: Path) -> None:
    project = copy_of(prepared, tmp_path / "distalign")
    with started(project, *THROUGH_SLURM, **slurm.environment) as process:
        number = under_way(slurm, project, process)
        slurm.ask("scancel", number)
        said = ends_well(project, process, undisturbed)
    assert f"SLURM-job '{number}' failed, SLURM status is: 'CANCELLED'" in said
    assert "resuming at iteration" in log_of(project)


@pytest.mark.injects("time limit shorter than the finetuning, through SLURM")
def test_time_limit_shorter_than_the_job(slurm: Slurm, prepared: Path, undisturbed: Path, tmp_path: Path) -> None:
    project = copy_of(prepared, tmp_path / "distalign")
    with started(project, *THROUGH_SLURM, **slurm.environment) as process:
        number = under_way(slurm, project, process)
        slurm.ask("scontrol", "update", f"jobid={number}", "EndTime=now")
        said = ends_well(project, process, undisturbed)
    assert f"SLURM-job '{number}' failed, SLURM status is: 'TIMEOUT'" in said
    logs = [path.read_text() for path in (project / ".snakemake/slurm_logs").rglob(f"{number}.log")]
    assert any("SIGTERM: stopping after this iteration" in log and "interrupted and saved" in log for log in logs)
    assert "resuming at iteration" in log_of(project)


@pytest.mark.injects("node set down and resumed, through SLURM")
def test_node_set_down_and_resumed(slurm: Slurm, prepared: Path, undisturbed: Path, tmp_path: Path) -> None:
    project = copy_of(prepared, tmp_path / "distalign")
    with started(project, *THROUGH_SLURM, **slurm.environment) as process:
        number = under_way(slurm, project, process)
        slurm.ask("scontrol", "update", f"nodename={NODE}", "state=down", "reason=test")
        wait_until(lambda: not slurm.finetuning("RUNNING"), "the end of the job")
        reboot_node(slurm.folder, slurm.environment, project)
        if slurm.node() == "down":  # it may be back in service by itself
            slurm.ask("scontrol", "update", f"nodename={NODE}", "state=resume")
        if slurm.finetuning("PENDING"):  # SLURM holds it back for two minutes
            slurm.ask("scontrol", "update", f"jobid={number}", "StartTime=now")
        ends_well(project, process, undisturbed)
    assert "resuming at iteration" in log_of(project)


@pytest.mark.injects("Snakemake killed while its SLURM job runs, through SLURM")
def test_snakemake_killed_and_started_again(slurm: Slurm, prepared: Path, undisturbed: Path, tmp_path: Path) -> None:
    project = copy_of(prepared, tmp_path / "distalign")
    with started(project, *THROUGH_SLURM, **slurm.environment) as process:
        number = under_way(slurm, project, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert slurm.finetuning("RUNNING") == [number]
    with started(project, *THROUGH_SLURM, **slurm.environment) as process:
        said = ends_well(project, process, undisturbed)
    assert "the Snakemake that left it is no longer alive" in said
    assert f"SLURM jobs of a Snakemake that is no longer alive, cancelled: {number}" in said
    assert "resuming at iteration" in log_of(project)


@pytest.mark.injects("slurmctld restarted, through SLURM")
def test_controller_restarted(slurm: Slurm, prepared: Path, undisturbed: Path, tmp_path: Path) -> None:
    project = copy_of(prepared, tmp_path / "distalign")
    with started(project, *THROUGH_SLURM, **slurm.environment) as process:
        number = under_way(slurm, project, process)
        restart_controller(slurm.folder, slurm.environment)
        ends_well(project, process, undisturbed)
    assert slurm.finetuning("COMPLETED")[-1:] == [number]


@pytest.fixture
def small_disk(prepared: Path, tmp_path: Path) -> Iterator[Path]:
    """The project, with its results on a disk of their own; a filler takes all of it that is left."""
    project = copy_of(prepared, tmp_path / "distalign")
    kept = project / "kept"
    (project / "results").rename(kept)
    (project / "results").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(project / "results")]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a test mount a disk")
    try:
        shutil.copytree(kept, project / "results", symlinks=True, dirs_exist_ok=True)
        yield project
    finally:
        subprocess.run(["umount", "--lazy", str(project / "results")], check=True)


def fill(path: Path) -> None:
    """Take all the space that is left."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC


@pytest.mark.injects("scratch disk full, through SLURM")
def test_full_scratch_disk(slurm: Slurm, small_disk: Path, undisturbed: Path) -> None:
    project = small_disk
    with started(project, *THROUGH_SLURM, **slurm.environment) as process:
        under_way(slurm, project, process)
        fill(project / "results/.filler")
        assert process.wait(timeout=300) != 0
    said = (project / "log.txt").read_text()
    assert "the disk is full" in said
    assert "Traceback" not in said
    assert_whole(project / "results")
    saved = checkpoints(project)
    assert saved >= 2
    subprocess.run(["mount", "-o", "remount,size=600m", str(project / "results")], check=True)
    with started(project, *THROUGH_SLURM, **slurm.environment) as process:
        ends_well(project, process, undisturbed)
    assert f"resuming at iteration {saved} of {ITERATIONS}" in log_of(project)
