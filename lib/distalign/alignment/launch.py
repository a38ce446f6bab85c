"""Start a finetuning: in this process, or in several that make one update under torchrun."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from distalign.alignment.distributed import Group, end_with_parent
from distalign.alignment.trainer import finetune
from distalign.config.processes import too_many
from distalign.errors import UserError

TORCHRUN = "distalign.alignment.torchrun"
WORKER = "distalign.alignment.worker"


def launch(
    processes: int,
    spec: Mapping[str, Any],
    paths: Any,
    threads: int,
    log: Path | None = None,
    worker: str = WORKER,
) -> None:
    """Finetune in `processes` processes, here if it is one, else under torchrun; `paths` are `FinetunePaths`.

    `log` is the job's log, which several processes add to; `worker` is the module each of them runs.

    Raises:
        UserError: N images cannot be shared evenly, or there are fewer GPUs than processes; or a process stopped on an
            error, which stands in the log above it.
        SystemExit: the run was interrupted; the status is the signal's.
    """
    if processes == 1:
        finetune(spec, paths, threads)
        return
    Group(0, processes).share(spec["images_per_step"])  # refuse before starting anything
    if problem := too_many(processes, torch.cuda.device_count(), "finetune"):
        raise UserError(problem)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work.json"
        share = max(1, threads // processes)
        content = {"spec": spec, "paths": vars(paths), "threads": share, "log": log}
        work.write_text(json.dumps(content, default=str))
        command = [sys.executable, "-m", TORCHRUN, "--standalone", f"--nproc-per-node={processes}"]
        command += ["-m", worker, str(work)]
        with subprocess.Popen(command, preexec_fn=end_with_parent) as runner:
            try:
                status = runner.wait()
            except BaseException:  # a signal here: torchrun passes it on, and the workers save
                runner.terminate()
                runner.wait()
                raise
    if status:
        raise UserError(f"finetuning in {processes} processes stopped with status {status}; see the messages above")
