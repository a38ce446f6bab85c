"""Bring a trained classifier to its place, with the metrics and the card that belong to it."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.weights import obtain
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    obtain(snakemake.params.spec, Path(snakemake.output.model).parent, Path.cwd())
