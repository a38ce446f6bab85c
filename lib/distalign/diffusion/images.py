"""The images of an evaluation, in one Parquet file."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from distalign.diffusion.adapters import load_adapter
from distalign.diffusion.pipeline import load_generator
from distalign.diffusion.sampler import generate
from distalign.prompts import load_prompts
from distalign.store.parquet import IMAGES, ParquetWriter, image_cells
from distalign.store.provenance import collect
from distalign.store.seeds import stable_seed

log = logging.getLogger(__name__)


def generate_images(
    spec: Mapping[str, Any], prompts: Path, backbone: Path, adapter: Path | None, output: Path, device: torch.device
) -> None:
    """Generate every image of an evaluation and write them with schema IMAGES, prompts in the order of the file.

    An image's noise depends on the seed, its prompt and its index only, so that all methods start from the same.

    Args:
        spec: What `Study.image_spec` says.
        prompts: The prompt set.
        backbone: The pipeline's directory.
        adapter: The adapter's directory; None for the model as it is.
        output: Where to write.
        device: Where to compute.

    Raises:
        UserError: unreadable prompts, model or adapter.
    """
    pipeline = load_generator(backbone, spec, device)
    if adapter is not None:
        load_adapter(pipeline, adapter)
    inputs = {"prompts": prompts, "backbone": backbone, **({"adapter": adapter} if adapter else {})}
    seed, batch = spec["seed"], spec["micro_batch"]["sample"]
    wanted = [(p, i) for p in load_prompts(prompts).split(spec["split"]) for i in range(spec["images_per_prompt"])]
    started = time.monotonic()
    with ParquetWriter(output, IMAGES, collect("generate", spec, inputs, {"noise": seed})) as writer:
        for start in range(0, len(wanted), batch):
            part = wanted[start : start + batch]
            seeds = [stable_seed(seed, "evaluation", prompt.id, index) for prompt, index in part]
            texts = [prompt.text for prompt, _ in part]
            steps, guidance = spec["sampler_steps"], spec["guidance"]
            images = generate(pipeline, texts, seeds, steps, guidance, batch, spec["text_padding"])
            names = [f"{prompt.id}-{index:04d}" for prompt, index in part]
            writer.write(
                {
                    "image_id": names,
                    "prompt_id": [prompt.id for prompt, _ in part],
                    "prompt": texts,
                    "index": [index for _, index in part],
                    "noise_seed": seeds,
                    "image": image_cells(_pixels(images), [f"{name}.png" for name in names]),
                }
            )
            log.info("images %d/%d, %.1f s", start + len(part), len(wanted), time.monotonic() - started)


def _pixels(images: torch.Tensor) -> list[Any]:
    """Images (B, 3, H, W) in [-1, 1] as uint8 (H, W, 3) arrays."""
    pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255).byte()
    return list(pixels.permute(0, 2, 3, 1).cpu().numpy())
