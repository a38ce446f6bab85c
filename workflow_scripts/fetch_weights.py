"""Bring a pretrained model to its place, verified if it is shipped."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.weights import obtain
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    obtain(snakemake.params.spec, Path(snakemake.output.model), Path.cwd())
