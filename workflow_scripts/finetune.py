"""Finetune an adapter (algorithm A.1): in this process, or in one per GPU when the job has several."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.alignment.launch import launch
from distalign.alignment.trainer import FinetunePaths
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    paths = FinetunePaths(
        prompts=tuple(map(Path, snakemake.input.prompts)),
        backbone=Path(snakemake.input.backbone),
        classifier=Path(snakemake.input.classifier).parent,
        evaluation_classifier=Path(snakemake.input.evaluation_classifier).parent,
        clip=Path(snakemake.input.clip),
        dino=Path(snakemake.input.dino),
        face_embedding=Path(snakemake.input.face_embedding),
        originals=Path(snakemake.input.originals),
        bank=Path(snakemake.input.bank),
        run=Path(snakemake.output.spec).parent,
    )
    launch(max(1, snakemake.resources.get("gpu", 1)), snakemake.params.spec, paths, snakemake.threads)
