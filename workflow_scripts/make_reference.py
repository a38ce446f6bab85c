"""DINO features of real pictures: what generated images of an evaluation are compared with, and others like them."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.diffusion.batch_sizes import looked_at
from distalign.encoders import DinoEncoder
from distalign.measure.reference import photographs, write_reference
from distalign.miniworld.references import rendered_portraits
from distalign.prompts import load_prompts
from distalign.store.provenance import collect
from distalign.workflow import device, job

snakemake: Snakemake

with job(snakemake):
    spec, files = snakemake.params.spec, snakemake.input
    prompts = load_prompts(Path(files.prompts)).split(spec["split"], spec.get("at_most"))
    count, seed = spec["images_per_prompt"], spec["seed"]
    if spec["source"] == "rendered":
        pictures = rendered_portraits(prompts, count, seed)
    else:
        pictures = photographs(Path(spec["path"]), spec["size"], count * len(prompts), seed)
    inputs = {"dino": Path(files.dino), f"prompts/{Path(files.prompts).stem}": Path(files.prompts)}
    encoder = DinoEncoder(Path(files.dino), spec["dino"]["antialias"]).to(device())
    write_reference(
        Path(snakemake.output.reference),
        pictures,
        encoder.features,
        provenance=collect("reference", spec, inputs, {"reference": seed}),
        batch=looked_at(spec["micro_batch"], device().type),
        device=device(),
    )
