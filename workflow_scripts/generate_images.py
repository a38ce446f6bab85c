"""Generate the images of an evaluation, by a run's adapter or by the model as it is."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.diffusion.images import generate_images
from distalign.workflow import device, job

snakemake: Snakemake

with job(snakemake):
    adapter = snakemake.input.get("adapter")
    generate_images(
        snakemake.params.spec,
        prompts=Path(snakemake.input.prompts),
        backbone=Path(snakemake.input.backbone),
        adapter=Path(adapter) if adapter else None,
        output=Path(snakemake.output.images),
        device=device(),
    )
