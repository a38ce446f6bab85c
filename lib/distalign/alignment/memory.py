"""Memory of autograd graphs: whether a sampling may keep all of them, and keeping what one iteration frees."""

import ctypes
import sys

import psutil
import torch
from torch import Tensor

from distalign.diffusion.pipeline import Pipeline
from distalign.diffusion.sampler import predict_noise
from distalign.diffusion.text import Padding, encode_prompts

FREE_SHARE = 0.5  # of the free memory; the rest is for decoder, losses and other processes
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h


def retain_freed_memory() -> None:
    """Let this process keep memory that it frees, where malloc is glibc's; nothing happens elsewhere.

    An iteration builds and frees gigabytes of graphs on a CPU. By default these go back to the system, which hands
    them out again page by page: up to a third of an iteration's time.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def graph_bytes(pipeline: Pipeline, text: str, padding: Padding, guidance: float) -> int:
    """Bytes that the graph of one guided noise prediction of one image holds, weights not counted."""
    storages: dict[int, int] = {}
    weights = {
        parameter.untyped_storage().data_ptr() for module in pipeline.modules for parameter in module.parameters()
    }

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    conditioning = encode_prompts(pipeline, [text], padding).leaf()
    states, mask = conditioning.batch(torch.zeros(1, dtype=torch.long, device=pipeline.device))
    latents = torch.zeros(1, *pipeline.latent_shape, device=pipeline.device).requires_grad_()
    timestep = torch.tensor(1, device=pipeline.device)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        prediction = predict_noise(pipeline, latents, timestep, states, mask, guidance)
    del prediction
    return sum(storages.values())


def graphs_fit(pipeline: Pipeline, text: str, padding: Padding, guidance: float, evaluations: int) -> bool:
    """Whether the graphs of so many (image, step) evaluations fit into a share of the free memory."""
    free = psutil.virtual_memory().available
    if pipeline.device.type == "cuda":
        free = torch.cuda.mem_get_info(pipeline.device)[0]
    return graph_bytes(pipeline, text, padding, guidance) * evaluations <= FREE_SHARE * free
