"""Train the diffusion model for a few steps only."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.miniworld.pretrain.early import train_early
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    train_early(snakemake.params.spec, Path(snakemake.input.backbone), Path(snakemake.output.model))
