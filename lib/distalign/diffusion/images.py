"""The images of an evaluation, in one Parquet file."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distalign.diffusion.batch_sizes import AUTO, MULTIPLE
from distalign.diffusion.intervention import Batch, Intervention, render
from distalign.diffusion.pipeline import Pipeline
from distalign.diffusion.probing import batch_sizes
from distalign.prompts import Prompt, load_prompts
from distalign.store.parquet import IMAGES, ParquetWriter, encode_png, png_cells
from distalign.store.provenance import collect
from distalign.store.seeds import stable_seed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """What generating took, per image: the U-Net's evaluations relative to plain sampling, and seconds of a device."""

    images: int
    evaluations: float
    seconds: float


@dataclass(frozen=True)
class Effort:
    """What making some images took: images the U-Net was evaluated on, and seconds of the one device that made them."""

    images: int
    evaluations: int
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
    with images_writer(spec, prompts, inputs, output) as writer:
        return total_cost(spec, [make_images(spec, prompts, pipeline, intervention, writer.write)])


def images_writer(spec: Mapping[str, Any], prompts: Path, inputs: Mapping[str, Path], output: Path) -> ParquetWriter:
    """The file of an evaluation's images, to be filled in order."""
    inputs = {f"prompts/{prompts.stem}": prompts, **inputs}
    return ParquetWriter(output, IMAGES, collect("generate", spec, inputs, {"noise": spec["seed"]}))


def pieces(spec: Mapping[str, Any], prompts: Path) -> list[list[tuple[Prompt, int]]]:
    """All (prompt, index) of an evaluation in order, in pieces that one process makes.

    They are the micro-batches, where the preset says how large these are; where that is found by trying, as many images
    as are whole micro-batches of any size. So what is computed together does not depend on how pieces are shared.
    """
    shown = load_prompts(prompts).split(spec["split"], spec.get("at_most"))
    wanted = [(prompt, index) for prompt in shown for index in range(spec["images_per_prompt"])]
    size = spec["micro_batch"]["sample"]
    size = MULTIPLE if size == AUTO else size
    return [wanted[start : start + size] for start in range(0, len(wanted), size)]


def make_images(
    spec: Mapping[str, Any],
    prompts: Path,
    pipeline: Pipeline,
    intervention: Intervention,
    write: Callable[[Mapping[str, Any]], None],
    part: int = 0,
    parts: int = 1,
) -> Effort:
    """Generate one of several equal parts of an evaluation's images, and hand their rows to `write` in order.

    A part is whole pieces (`pieces`).
    """
    seed, steps, guidance = spec["seed"], spec["sampler_steps"], spec["guidance"]
    all_pieces = pieces(spec, prompts)
    own_pieces = all_pieces[part * len(all_pieces) // parts : (part + 1) * len(all_pieces) // parts]
    wanted = [image for piece in own_pieces for image in piece]
    sizes = batch_sizes(spec["micro_batch"], pipeline, ("sample", "decode"))
    started, before = time.monotonic(), pipeline.evaluated
    with PngColumn() as column:

        def pass_on(ready: Mapping[str, Any] | None, done: int) -> None:
            if ready is not None:
                write(ready)
                log.info("images %d/%d, %.1f s", done, len(wanted), time.monotonic() - started)

        for start in range(0, len(wanted), sizes["sample"]):
            batch = wanted[start : start + sizes["sample"]]
            seeds = [stable_seed(seed, "evaluation", prompt.id, index) for prompt, index in batch]
            own = [prompt for prompt, _ in batch]
            together = Batch(own, [index for _, index in batch], spec["images_per_prompt"], seed)
            how = (steps, guidance, spec["text_padding"], sizes["decode"])
            images = render(pipeline, intervention, together, seeds, *how)
            columns = {
                "image_id": [f"{prompt.id}-{index:04d}" for prompt, index in batch],
                "prompt_id": [prompt.id for prompt in own],
                "prompt": [prompt.text for prompt in own],
                "index": [index for _, index in batch],
                "noise_seed": seeds,
            }
            pass_on(column.put(columns, images), start)
        pass_on(column.rest(), len(wanted))
    return Effort(len(wanted), pipeline.evaluated - before, time.monotonic() - started)


def total_cost(spec: Mapping[str, Any], efforts: Sequence[Effort]) -> Cost:
    """What all parts of an evaluation's images took, per image: the same for any number of parts, but for seconds."""
    images = sum(effort.images for effort in efforts)
    plain = images * spec["sampler_steps"] * (1 if spec["guidance"] == 1 else 2)
    seconds = sum(effort.seconds for effort in efforts)
    return Cost(images, sum(effort.evaluations for effort in efforts) / plain, seconds / images)


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
