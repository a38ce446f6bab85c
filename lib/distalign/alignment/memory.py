"""How much memory a U-Net's autograd graph takes, to decide whether a sampling may keep all of them."""

import psutil
import torch
from torch import Tensor

from distalign.diffusion.pipeline import Pipeline
from distalign.diffusion.sampler import predict_noise
from distalign.diffusion.text import Padding, encode_prompts

FREE_SHARE = 0.5  # of the free memory; the rest is for decoder, losses and other processes


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
