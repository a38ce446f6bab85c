"""Fit a method that is not finetuned."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.alignment.reading import WorldPaths
from distalign.methods.fitting import fit_method
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
    fit_method(snakemake.params.spec, paths, Path(snakemake.output.spec).parent, device())
