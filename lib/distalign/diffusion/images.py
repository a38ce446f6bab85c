"""The images of an evaluation, in one Parquet file."""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distalign.diffusion.intervention import Batch, Intervention, render
from distalign.diffusion.pipeline import Pipeline
from distalign.diffusion.probing import batch_sizes
from distalign.prompts import load_prompts
from distalign.store.parquet import IMAGES, ParquetWriter, encode_png, png_cells
from distalign.store.provenance import collect
from distalign.store.seeds import stable_seed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """What generating took, per image: the U-Net's evaluations relative to plain sampling, and seconds."""

    images: int
    evaluations: float
    seconds: float


def generate_images(
    spec: Mapping[str, Any],
    prompts: Path,
    inputs: Mapping[str, Path],
    load: Callable[[], tuple[Pipeline, Intervention]],
    output: Path,
) -> Cost:
    """Generate every image of an evaluation and write them with schema IMAGES, prompts in the order of the file.

    An image's noise depends on the seed, its prompt and its index only, so that all methods start from the same.

    Args:
        spec: What `Study.image_spec` says.
        prompts: The prompt set.
        inputs: The files behind `load`, for provenance.
        load: Gives the model, and what a method does while it samples.
        output: Where to write.

    Raises:
        UserError: unreadable prompts, or whatever `load` raises.
    """
    pipeline, intervention = load()
    inputs = {f"prompts/{prompts.stem}": prompts, **inputs}
    sizes = batch_sizes(spec["micro_batch"], pipeline, ("sample", "decode"))
    seed, batch = spec["seed"], sizes["sample"]
    shown = load_prompts(prompts).split(spec["split"], spec.get("at_most"))
    wanted = [(prompt, index) for prompt in shown for index in range(spec["images_per_prompt"])]
    started = time.monotonic()
    steps, guidance = spec["sampler_steps"], spec["guidance"]
    provenance = collect("generate", spec, inputs, {"noise": seed})
    before = pipeline.evaluated
    with PngColumn() as column, ParquetWriter(output, IMAGES, provenance) as writer:

        def write(ready: Mapping[str, Any] | None, done: int) -> None:
            if ready is not None:
                writer.write(ready)
                log.info("images %d/%d, %.1f s", done, len(wanted), time.monotonic() - started)

        for start in range(0, len(wanted), batch):
            part = wanted[start : start + batch]
            seeds = [stable_seed(seed, "evaluation", prompt.id, index) for prompt, index in part]
            own = [prompt for prompt, _ in part]
            together = Batch(own, [index for _, index in part], spec["images_per_prompt"], seed)
            how = (steps, guidance, spec["text_padding"], sizes["decode"])
            images = render(pipeline, intervention, together, seeds, *how)
            columns = {
                "image_id": [f"{prompt.id}-{index:04d}" for prompt, index in part],
                "prompt_id": [prompt.id for prompt in own],
                "prompt": [prompt.text for prompt in own],
                "index": [index for _, index in part],
                "noise_seed": seeds,
            }
            write(column.put(columns, images), start)
        write(column.rest(), len(wanted))
    evaluations = pipeline.evaluated - before
    plain = len(wanted) * steps * (1 if guidance == 1 else 2)
    return Cost(len(wanted), evaluations / plain, (time.monotonic() - started) / len(wanted))


class PngColumn:
    """Images on their way to a file: a batch is copied and encoded by threads while the next one is sampled.

    So a GPU waits neither for the copy nor for PNG. At most one batch waits, and batches come out in their order.
    """

    def __enter__(self) -> "PngColumn":
        self._threads = ThreadPoolExecutor(torch.get_num_threads())
        self._waiting: tuple[Mapping[str, Any], list[Future[bytes]]] | None = None
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the threads; images that were not asked for any more are dropped."""
        self._threads.shutdown(cancel_futures=True)

    def put(self, columns: Mapping[str, Any], images: Tensor) -> dict[str, Any] | None:
        """Begin with images (B, 3, H, W) in [-1, 1] of rows with an `image_id`; returns the batch before, complete."""
        before, copy = self.rest(), HostCopy(_pixels(images))
        png = [self._threads.submit(lambda i: encode_png(copy.array()[i]), i) for i in range(len(images))]
        self._waiting = columns, png
        return before

    def rest(self) -> dict[str, Any] | None:
        """The batch that is still waiting, complete; None if there is none."""
        if self._waiting is None:
            return None
        columns, png = self._waiting
        self._waiting = None
        names = [f"{name}.png" for name in columns["image_id"]]
        return {**columns, "image": png_cells([future.result() for future in png], names)}


class HostCopy:
    """A copy of a tensor in the CPU's memory, which may still be on its way from a GPU."""

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if values.device.type != "cuda":
            self._host = values
            return
        self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._host.copy_(values, non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record()

    def array(self) -> np.ndarray:
        """The values; waits until they are there."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.numpy()


def _pixels(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] as uint8 (B, H, W, 3)."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()
