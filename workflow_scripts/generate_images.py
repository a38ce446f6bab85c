"""Generate the images of an evaluation: by a finetuned adapter, by another method, or by the model as it is."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.diffusion.images import generate_images
from distalign.measure.bias import RunKey
from distalign.measure.cost import write_cost
from distalign.methods.loading import load_run
from distalign.workflow import device, job

snakemake: Snakemake

with job(snakemake):
    spec, about = snakemake.params.spec, snakemake.wildcards
    names = ("backbone", "adapter", "classifier", "clip", "dino", "face_embedding")
    inputs = {name: Path(snakemake.input[name]) for name in names if snakemake.input.get(name)}
    if "classifier" in inputs:
        inputs["classifier"] = inputs["classifier"].parent
    prompts = Path(snakemake.input.prompts)
    cost = generate_images(
        spec, prompts, inputs, lambda: load_run(spec, prompts, inputs, device()), Path(snakemake.output.images)
    )
    write_cost(
        cost, RunKey(about.preset, about.run, int(about.seed), about.evaluation), spec, Path(snakemake.output.cost)
    )
