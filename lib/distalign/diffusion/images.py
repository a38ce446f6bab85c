"""The images of an evaluation, in one Parquet file."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distalign.diffusion.intervention import Batch, Intervention, render
from distalign.diffusion.pipeline import Pipeline
from distalign.diffusion.probing import batch_sizes
from distalign.prompts import load_prompts
from distalign.store.parquet import IMAGES, ParquetWriter, image_cells
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
    with _counting(pipeline) as evaluations, ParquetWriter(output, IMAGES, provenance) as writer:
        for start in range(0, len(wanted), batch):
            part = wanted[start : start + batch]
            seeds = [stable_seed(seed, "evaluation", prompt.id, index) for prompt, index in part]
            own = [prompt for prompt, _ in part]
            together = Batch(own, [index for _, index in part], spec["images_per_prompt"], seed)
            images = render(
                pipeline, intervention, together, seeds, steps, guidance, spec["text_padding"], sizes["decode"]
            )
            names = [f"{prompt.id}-{index:04d}" for prompt, index in part]
            writer.write(
                {
                    "image_id": names,
                    "prompt_id": [prompt.id for prompt in own],
                    "prompt": [prompt.text for prompt in own],
                    "index": [index for _, index in part],
                    "noise_seed": seeds,
                    "image": image_cells(_pixels(images), [f"{name}.png" for name in names]),
                }
            )
            log.info("images %d/%d, %.1f s", start + len(part), len(wanted), time.monotonic() - started)
    plain = len(wanted) * steps * (1 if guidance == 1 else 2)
    return Cost(len(wanted), sum(evaluations) / plain, (time.monotonic() - started) / len(wanted))


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
