"""Render the training images of a plan with the frozen model, and keep what the losses need of them."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.alignment.originals import compute_originals
from distalign.alignment.reading import WorldPaths
from distalign.workflow import device, job

snakemake: Snakemake

with job(snakemake):
    paths = WorldPaths.of_job(snakemake.input)
    compute_originals(snakemake.params.spec, paths, Path(snakemake.output.originals), device())
