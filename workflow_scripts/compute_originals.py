"""Render the training images of a plan with the frozen model, and keep what the losses need of them."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.alignment.originals import compute_originals
from distalign.alignment.reading import WorldPaths
from distalign.workflow import device, job

snakemake: Snakemake

with job(snakemake):
    paths = WorldPaths(
        prompts=tuple(map(Path, snakemake.input.prompts)),
        backbone=Path(snakemake.input.backbone),
        classifier=Path(snakemake.input.classifier).parent,
        clip=Path(snakemake.input.clip),
        dino=Path(snakemake.input.dino),
        face_embedding=Path(snakemake.input.face_embedding),
    )
    compute_originals(snakemake.params.spec, paths, Path(snakemake.output.originals), device())
