"""Fit a method that is not finetuned."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.alignment.reading import WorldPaths
from distalign.methods.fitting import fit_method
from distalign.workflow import device, job

snakemake: Snakemake

with job(snakemake):
    paths = WorldPaths.of_job(snakemake.input)
    fit_method(snakemake.params.spec, paths, Path(snakemake.output.spec).parent, device())
