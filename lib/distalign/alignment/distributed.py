"""Several processes that make one update: gloo on CPUs, NCCL on GPUs."""

import ctypes
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from distalign.config.processes import uneven
from distalign.errors import UserError

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def end_with_parent() -> None:
    """Ask Linux for a SIGTERM when the parent ends, however it ends: no worker outlives its job."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def _together() -> Iterator[None]:
    """Tell the end of another process from a defect of this one."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "Connection" in str(error):
            what = str(error).splitlines()[0]
            raise UserError(f"another process of this run has ended; its own message says why ({what})") from error
        raise


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
        if problem := uneven(images, self.size):
            raise UserError(f"images_per_step: {problem}")
        each = images // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors of one type by their sums over all processes, in one message."""
        parts = list(tensors)
        if self.size == 1 or not parts:
            return
        flat = torch.cat([part.flatten() for part in parts])
        with _together():
            dist.all_reduce(flat)
        for part, total in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
            part.copy_(total.view_as(part))

    def gather(self, values: np.ndarray) -> np.ndarray:
        """The arrays (n_r, ...) of all processes, concatenated in the order of ranks."""
        if self.size == 1:
            return values
        parts: list[Any] = [None] * self.size
        with _together():
            dist.all_gather_object(parts, values)
        return np.concatenate(parts)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        value = torch.tensor([float(flag)], device=self.device)
        self.sum([value])
        return bool(value.item() > 0)
