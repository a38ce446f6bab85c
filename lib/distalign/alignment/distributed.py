"""Several processes that make one update: gloo on CPUs, NCCL on GPUs; and how one process starts them."""

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from distalign.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Group:
    """The processes of a run; a run of one process needs no communication."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def from_environment(cls) -> "Group":
        """Join the group torchrun describes in the environment; without it, a group of one on the best device."""
        cuda = torch.cuda.is_available()
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
        if int(os.environ.get("WORLD_SIZE", 1)) == 1:
            return cls(device=device)
        if cuda:
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if cuda else "gloo")
        return cls(dist.get_rank(), dist.get_world_size(), device)

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1:
            dist.destroy_process_group()

    def share(self, images: int) -> slice:
        """This process's part of N images.

        Raises:
            UserError: N images cannot be divided evenly.
        """
        if images % self.size:
            below, above = images - images % self.size, images + self.size - images % self.size
            processes = [n for n in range(1, images + 1) if images % n == 0]
            nearest = min(processes, key=lambda n: abs(n - self.size))
            raise UserError(
                f"images_per_step: {images} images cannot be divided evenly among {self.size} processes; "
                f"take {' or '.join(str(n) for n in (below, above) if n)} images, or {nearest} processes"
            )
        each = images // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors of one type by their sums over all processes, in one message."""
        parts = list(tensors)
        if self.size == 1 or not parts:
            return
        flat = torch.cat([part.flatten() for part in parts])
        dist.all_reduce(flat)
        for part, total in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
            part.copy_(total.view_as(part))

    def gather(self, values: np.ndarray) -> np.ndarray:
        """The arrays (n_r, ...) of all processes, concatenated in the order of ranks."""
        if self.size == 1:
            return values
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, values)
        return np.concatenate(parts)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        value = torch.tensor([float(flag)], device=self.device)
        self.sum([value])
        return bool(value.item() > 0)


WORKER = "distalign.alignment.worker"


def launch(processes: int, spec: Mapping[str, Any], paths: Any, threads: int, worker: str = WORKER) -> None:
    """Finetune in `processes` processes, here if it is one, else under torchrun; `paths` are `FinetunePaths`.

    `worker` is the module each process runs.

    Raises:
        UserError: a process stopped on an error, which stands in the log above it.
        SystemExit: the run was interrupted; the status is the signal's.
    """
    from distalign.alignment.trainer import finetune

    if processes == 1:
        finetune(spec, paths, threads)
        return
    Group(0, processes).share(spec["images_per_step"])  # refuse before starting anything
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work.json"
        names = {name: str(path) for name, path in vars(paths).items()}
        work.write_text(json.dumps({"spec": spec, "paths": names, "threads": max(1, threads // processes)}))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command += ["-m", worker, str(work)]
        with subprocess.Popen(command) as runner:
            try:
                status = runner.wait()
            except BaseException:  # a signal here: torchrun passes it on, and the workers save
                runner.terminate()
                runner.wait()
                raise
    if status:
        raise UserError(f"finetuning in {processes} processes stopped with status {status}; see the messages above")
