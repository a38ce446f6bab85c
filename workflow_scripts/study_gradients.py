"""Compare the gradient estimators on a grid of guidance, sampler steps and models."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.alignment.gradient_study import StudyPaths, study_gradients
from distalign.workflow import device, job

snakemake: Snakemake

with job(snakemake):
    spec, files = snakemake.params.spec, snakemake.input
    models = dict(zip(spec["backbones"], map(Path, files.backbones), strict=True))
    encoders = dict(zip(("clip", "dino"), map(Path, files.encoders), strict=False))  # none for `kind: magnitude`
    paths = StudyPaths(backbones=models, prompts=Path(files.prompts), **encoders)
    study_gradients(spec, paths, Path(snakemake.output.rows), device())
