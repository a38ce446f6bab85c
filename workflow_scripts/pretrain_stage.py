"""Train one of the mini world's own models from nothing."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.miniworld.pretrain.stages import STAGES, Recipe
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    STAGES[snakemake.wildcards.stage](Path(snakemake.output[0]).parent, Recipe())
