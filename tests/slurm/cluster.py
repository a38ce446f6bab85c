"""A real SLURM on this machine: one node, two pretended GPUs, everything in one folder and gone at the end.

Needs root and Debian's packages: apt-get install --no-install-recommends slurmctld slurmd slurm-client
slurm-wlm-basic-plugins munge. Nothing below /etc is touched; SLURM_CONF says where the configuration is.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "sinfo", "scontrol")
GPUS = 2
CONFIGURATION = """\
ClusterName=distalign
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,bf_interval=2
GresTypes=gpu
AccountingStorageType=accounting_storage/none
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ReturnToService=2
MinJobAge=600
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=ALL MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """What stands in the way of a SLURM here."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_search()) is None]
    return absent if os.geteuid() == 0 else ["root", *absent]


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """A running cluster, as the environment its clients need."""
    folder.mkdir(parents=True)
    path = f"{folder / 'bin'}:{_search()}"
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
    _configure(folder)
    try:
        _start(folder, environment)
        yield environment
    finally:
        cancel_jobs(environment)  # slurmd would leave them running
        for name in ("slurmd", "slurmctld", "munged"):
            pid = folder / f"{name}.pid"
            if pid.exists():
                _end(pid.read_text().strip())


def cancel_jobs(environment: dict[str, str], seconds: float = 20) -> None:
    """End what jobs there are, and wait until they have ended; without a controller to ask there is nothing to do."""
    ask, cancel = ["squeue", "--noheader", "--format=%i"], ["scancel", "--user=root"]
    end = time.monotonic() + seconds
    while _said(ask, environment) and time.monotonic() < end:
        _said(cancel, environment)
        time.sleep(0.5)


def _said(command: list[str], environment: dict[str, str]) -> str:
    """What a client prints, within two seconds; nothing if it fails."""
    command = ["timeout", "2", *command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _end(number: str, seconds: float = 10) -> None:
    """End a daemon, and wait until it is gone, as the next cluster has the same ports."""
    subprocess.run(["kill", number], check=False, capture_output=True)
    end = time.monotonic() + seconds
    while Path(f"/proc/{number}").exists() and time.monotonic() < end:
        time.sleep(0.1)


def _search() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _configure(folder: Path) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 * 9 // 10
    host = socket.gethostname().partition(".")[0]
    text = CONFIGURATION.format(folder=folder, host=host, cpus=os.cpu_count(), memory=memory, gpus=GPUS)
    (folder / "slurm.conf").write_text(text)
    for number in range(GPUS):  # SLURM counts GPUs by their device files; any file will do
        (folder / f"gpu{number}").touch()
    (folder / "gres.conf").write_text("".join(f"Name=gpu File={folder}/gpu{n}\n" for n in range(GPUS)))
    constrain = ("Cores", "Devices", "RAMSpace")
    (folder / "cgroup.conf").write_text("".join(f"Constrain{what}=no\n" for what in constrain))
    for name in ("spool", "state"):
        (folder / name).mkdir()
    # Snakemake's step executor takes every SLURM_* variable away, SLURM_CONF too.
    (folder / "bin").mkdir()
    step = folder / "bin/srun"
    step.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun", path=_search())} "$@"\n')
    step.chmod(0o755)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)


def _start(folder: Path, environment: dict[str, str]) -> None:
    places = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    options = [f"--{name}={folder / file}" for name, file in (places | {"seed-file": "munge.seed"}).items()]
    for command in (["munged", "--force", *options], ["slurmctld"], ["slurmd"]):
        subprocess.run(command, env=environment, check=True, capture_output=True)
    for _ in range(60):
        if _said(["sinfo", "--noheader", "--format=%T"], environment).startswith("idle"):
            return
        time.sleep(0.5)
    logs = "\n".join((folder / f"{name}.log").read_text()[-2000:] for name in ("slurmctld", "slurmd"))
    raise RuntimeError(f"SLURM did not start\n{logs}")


def reboot_node(folder: Path, environment: dict[str, str], project: Path) -> None:
    """End slurmd and all that it started in a project, as a reboot would, and start it again."""
    number = (folder / "slurmd.pid").read_text().strip()
    subprocess.run(["kill", number], check=True)
    listed = subprocess.run(["ps", "-wweo", "pid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 1) for line in listed.splitlines()[1:]]
    of_jobs = [pid for pid, command in rows if f"{project}/" in command]
    subprocess.run(["kill", "-KILL", *of_jobs], check=False, capture_output=True)  # some end by themselves just now
    while Path(f"/proc/{number}").exists():
        time.sleep(0.1)
    subprocess.run(["slurmd"], env=environment, check=True, capture_output=True)


def restart_controller(folder: Path, environment: dict[str, str]) -> None:
    """End slurmctld as an update of its package would, and start it again."""
    pid = folder / "slurmctld.pid"
    number = pid.read_text().strip()
    subprocess.run(["kill", number], check=True)
    while Path(f"/proc/{number}").exists():
        time.sleep(0.1)
    time.sleep(2)  # Snakemake asks once per second and must bear a refusal
    subprocess.run(["slurmctld"], env=environment, check=True, capture_output=True)
