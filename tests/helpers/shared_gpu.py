"""A process of a tiny finetuning, as `helpers.finetuning` is, whose processes may share one GPU: by gloo then."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from distalign.alignment.distributed import Group
from distalign.alignment.worker import main
from helpers.finetuning import tiny_judges


def join() -> Group:
    """The group that torchrun describes; NCCL refuses two processes on one GPU."""
    rank, size, gpus = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"]), torch.cuda.device_count()
    device = torch.device("cuda", rank % gpus)
    torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpus >= size else "gloo")
    return Group(dist.get_rank(), dist.get_world_size(), device)


if __name__ == "__main__":
    Group.from_environment = staticmethod(join)
    sys.exit(main(Path(sys.argv[1]), tiny_judges))
