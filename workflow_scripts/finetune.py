"""Finetune an adapter (algorithm A.1): in this process, or in one per GPU when the job has several."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.alignment.launch import launch
from distalign.alignment.trainer import FinetunePaths
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    paths = FinetunePaths.of_job(
        snakemake.input,
        evaluation_classifier=Path(snakemake.input.evaluation_classifier).parent,
        originals=Path(snakemake.input.originals),
        bank=Path(snakemake.input.bank),
        run=Path(snakemake.output.spec).parent,
    )
    processes = max(1, snakemake.resources.get("gpu", 1))
    launch(processes, snakemake.params.spec, paths, snakemake.threads, Path(snakemake.log[0]))
