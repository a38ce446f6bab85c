"""Generate the images of an evaluation: by a finetuned adapter, by another method, or by the model as it is.

A job with several GPUs does it in one process per GPU.
"""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.measure.bias import RunKey
from distalign.measure.cost import write_cost
from distalign.methods.sharding import generate
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    spec, about = snakemake.params.spec, snakemake.wildcards
    names = ("backbone", "adapter", "classifier", "clip", "dino", "face_embedding")
    inputs = {name: Path(snakemake.input[name]) for name in names if snakemake.input.get(name)}
    if "classifier" in inputs:
        inputs["classifier"] = inputs["classifier"].parent
    processes, output = max(1, snakemake.resources.get("gpu", 1)), Path(snakemake.output.images)
    cost = generate(processes, spec, Path(snakemake.input.prompts), inputs, output, snakemake.threads)
    write_cost(
        cost, RunKey(about.preset, about.run, int(about.seed), about.evaluation), spec, Path(snakemake.output.cost)
    )
