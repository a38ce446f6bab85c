"""The images of an evaluation, in one Parquet file."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distalign.diffusion.intervention import Batch, Intervention, render
from distalign.diffusion.pipeline import Pipeline
from distalign.prompts import Prompt, load_prompts
from distalign.store.parquet import IMAGES, ParquetWriter, image_cells
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


def micro_batches(spec: Mapping[str, Any], prompts: Path) -> list[list[tuple[Prompt, int]]]:
    """All (prompt, index) of an evaluation in order, as they are sampled together."""
    shown = load_prompts(prompts).split(spec["split"], spec.get("at_most"))
    wanted = [(prompt, index) for prompt in shown for index in range(spec["images_per_prompt"])]
    size = spec["micro_batch"]["sample"]
    return [wanted[start : start + size] for start in range(0, len(wanted), size)]


def make_images(
    spec: Mapping[str, Any],
    prompts: Path,
    pipeline: Pipeline,
    intervention: Intervention,
    write: Callable[[dict[str, Any]], None],
    part: int = 0,
    parts: int = 1,
) -> Effort:
    """Generate one of several equal parts of an evaluation's images, and hand their rows to `write` in order.

    A part is whole micro-batches: what is computed together does not depend on the number of parts.
    """
    seed, steps, guidance = spec["seed"], spec["sampler_steps"], spec["guidance"]
    batches = micro_batches(spec, prompts)
    batches = batches[part * len(batches) // parts : (part + 1) * len(batches) // parts]
    made, count, started = 0, sum(map(len, batches)), time.monotonic()
    with _counting(pipeline) as evaluations:
        for batch in batches:
            seeds = [stable_seed(seed, "evaluation", prompt.id, index) for prompt, index in batch]
            own = [prompt for prompt, _ in batch]
            together = Batch(own, [index for _, index in batch], spec["images_per_prompt"], seed)
            images = render(pipeline, intervention, together, seeds, steps, guidance, spec["text_padding"])
            names = [f"{prompt.id}-{index:04d}" for prompt, index in batch]
            write(
                {
                    "image_id": names,
                    "prompt_id": [prompt.id for prompt in own],
                    "prompt": [prompt.text for prompt in own],
                    "index": [index for _, index in batch],
                    "noise_seed": seeds,
                    "image": image_cells(_pixels(images), [f"{name}.png" for name in names]),
                }
            )
            made += len(batch)
            log.info("images %d/%d, %.1f s", made, count, time.monotonic() - started)
    return Effort(count, sum(evaluations), time.monotonic() - started)


def total_cost(spec: Mapping[str, Any], efforts: Sequence[Effort]) -> Cost:
    """What all parts of an evaluation's images took, per image: the same for any number of parts, but for seconds."""
    images = sum(effort.images for effort in efforts)
    plain = images * spec["sampler_steps"] * (1 if spec["guidance"] == 1 else 2)
    seconds = sum(effort.seconds for effort in efforts)
    return Cost(images, sum(effort.evaluations for effort in efforts) / plain, seconds / images)


@contextmanager
def _counting(pipeline: Pipeline) -> Iterator[list[int]]:
    """The number of images in each call of the U-Net."""
    calls: list[int] = []
    hook = pipeline.unet.register_forward_pre_hook(lambda module, arguments: calls.append(len(arguments[0])))
    try:
        yield calls
    finally:
        hook.remove()


def _pixels(images: torch.Tensor) -> list[Any]:
    """Images (B, 3, H, W) in [-1, 1] as uint8 (H, W, 3) arrays."""
    pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255).byte()
    return list(pixels.permute(0, 2, 3, 1).cpu().numpy())
