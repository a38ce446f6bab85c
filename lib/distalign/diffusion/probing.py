"""Find by trying how many images at once a GPU's memory holds, and remember it beside the model."""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from distalign.config.fingerprint import fingerprint
from distalign.diffusion.attention import prompt_keys
from distalign.diffusion.batch_sizes import (
    AUTO,
    FILE,
    LARGEST,
    ON_CPU,
    Size,
    complete,
    largest_that_fits,
    remember,
    remembered,
)
from distalign.diffusion.pipeline import Pipeline
from distalign.diffusion.sampler import decode, predict_noise, sample
from distalign.diffusion.text import encode_prompts
from distalign.errors import exhausted

log = logging.getLogger(__name__)
MARGIN = 0.12  # of the memory other processes leave; fragments, and what depends on the images, need some
GUIDANCE = 7.5  # with guidance a call has twice as many rows

Look = Callable[[Tensor], Tensor]  # images (n, 3, H, W) in [-1, 1] to a scalar that is differentiated


def seen_by(encoders: Mapping[str, Any]) -> Look:
    """What an image loss with these encoders does with images, as far as memory goes."""
    return lambda images: torch.stack([encoder.encode_images(images).sum() for encoder in encoders.values()]).sum()


def batch_sizes(
    micro_batch: Mapping[str, Size], pipeline: Pipeline, kinds: Collection[str], look: Look | None = None
) -> dict[str, int]:
    """Sizes of these kinds (`batch_sizes.KINDS`): as given, or where AUTO, as many images as fit; fixed on a CPU.

    `look` is what the loss does with images. What was found once is read from `batch_sizes.json` beside the model.

    Raises:
        UserError: the memory does not hold one image.
    """
    wanted = complete(micro_batch)
    return {kind: _size(wanted[kind], kind, pipeline, look) for kind in kinds}


def _size(wanted: Size, kind: str, pipeline: Pipeline, look: Look | None) -> int:
    if isinstance(wanted, int):
        return wanted
    assert wanted == AUTO
    if pipeline.device.type != "cuda":
        return ON_CPU[kind]
    key = _key(kind, pipeline)
    file = pipeline.root.parent / FILE if pipeline.root else None
    known = remembered(file, key) if file else None
    if known is not None:
        return known
    probe = Probe(pipeline, look)
    size = largest_that_fits(lambda n: fits(lambda: probe(kind, n), pipeline.device), LARGEST[kind], kind)
    log.info("micro_batch: %s %d fits into the GPU's memory", kind, size)
    if file:
        remember(file, key, size)
    return size


def _key(kind: str, pipeline: Pipeline) -> str:
    """Card, model with its adapters, resolution and precision."""
    card = torch.cuda.get_device_properties(pipeline.device)
    weights = [sum(p.numel() for p in module.parameters()) for module in pipeline.modules]
    model = fingerprint([dict(pipeline.unet.config), dict(pipeline.vae.config), weights])[:12]
    memory = f"{card.total_memory / 2**30:.0f} GiB"
    size = f"{pipeline.image_size} pixels"
    return ", ".join([kind, card.name, memory, model, size, str(pipeline.computes_in), torch.__version__])


class Probe:
    """What a job does with n images at once, of each kind; it leaves no gradient."""

    def __init__(self, pipeline: Pipeline, look: Look | None = None) -> None:
        self.pipeline, self.look = pipeline, look

    def __call__(self, kind: str, images: int) -> None:
        """Do it once."""
        try:
            with torch.set_grad_enabled(kind in ("gradient", "loss")):
                getattr(self, f"_{kind}")(images)
        finally:
            for module in self.pipeline.modules:
                for parameter in module.parameters():
                    parameter.grad = None

    def _latents(self, images: int) -> Tensor:
        return torch.zeros(images, *self.pipeline.latent_shape, device=self.pipeline.device)

    def _index(self, images: int) -> Tensor:
        return torch.zeros(images, dtype=torch.long, device=self.pipeline.device)

    def _sample(self, images: int) -> None:
        conditioning = encode_prompts(self.pipeline, [""], "max_length")
        sample(self.pipeline, self._latents(images), conditioning, self._index(images), 2, GUIDANCE, images, keep=True)

    def _gradient(self, images: int) -> None:
        leaf = encode_prompts(self.pipeline, [""], "max_length").leaf()
        keys, index = prompt_keys(self.pipeline, leaf), self._index(images)
        states, mask = leaf.batch(index)
        kept = None if keys is None else keys.batch(index)
        latents = self._latents(images).requires_grad_()
        time = torch.ones((), dtype=torch.long, device=self.pipeline.device)
        predict_noise(self.pipeline, latents, time, states, mask, GUIDANCE, kept).sum().backward()

    def _decode(self, images: int) -> None:
        decode(self.pipeline, self._latents(images), images)

    def _loss(self, images: int) -> None:
        decoded = decode(self.pipeline, self._latents(images).requires_grad_(), images)
        (decoded.sum() if self.look is None else self.look(decoded)).backward()


def fits(run: Callable[[], None], device: torch.device) -> bool:
    """Whether something runs in the memory of a GPU with MARGIN of it to spare."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    free, _ = torch.cuda.mem_get_info(device)
    ours = torch.cuda.memory_reserved(device) + free
    try:
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_reserved(device) <= (1 - MARGIN) * ours
    except RuntimeError as error:
        if exhausted(error) is None:
            raise
        return False
    finally:
        torch.cuda.empty_cache()
