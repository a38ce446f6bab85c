"""Look at the images of an evaluation: faces, perceived attributes, similarity, concept."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.diffusion.batch_sizes import looked_at
from distalign.measure.classify import classify, load_observers
from distalign.prompts import load_prompts
from distalign.store.provenance import by_place, collect
from distalign.workflow import device, job

snakemake: Snakemake

with job(snakemake):
    spec, files = snakemake.params.spec, snakemake.input
    originals = Path(files.originals) if files.get("originals") else None
    paths = {
        name: Path(files[name])
        for name in ("clip", "dino", "reader", "face_embedding", "concept_reader")
        if files.get(name)
    }
    classifiers = {Path(file).parent.name: Path(file).parent for file in files.classifiers}
    inputs = {**paths, **classifiers, "images": Path(files.images), **by_place([originals] if originals else [])}
    inputs[f"prompts/{Path(files.prompts).stem}"] = Path(files.prompts)
    classify(
        Path(files.images),
        originals,
        Path(snakemake.output.classified),
        Path(snakemake.output.features),
        prompts=load_prompts(Path(files.prompts)).split(spec["split"], spec.get("at_most")),
        observers=load_observers(spec, paths, classifiers, device()),
        provenance=collect("classify", spec, inputs, {"run": int(snakemake.wildcards.seed)}),
        batch=looked_at(spec["micro_batch"], device().type),
    )
