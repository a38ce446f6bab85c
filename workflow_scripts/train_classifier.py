"""Train an attribute classifier and write its card."""

from dataclasses import fields
from functools import partial
from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.classifiers.initial import start_from
from distalign.classifiers.training import TrainingSpec, train_classifier
from distalign.diffusion.reconstruction import reconstructor
from distalign.store.provenance import collect
from distalign.workflow import device, job

snakemake: Snakemake

with job(snakemake):
    spec, files = snakemake.params.spec, snakemake.input
    settings = {field.name: spec[field.name] for field in fields(TrainingSpec) if field.name in spec}
    settings |= {"chip_size": spec["chip"]["size"], "expand": spec["chip"]["expand"]}
    by_dataset = {Path(file).stem: Path(file) for file in files.faces}
    inputs = by_dataset | ({"initial": Path(files.initial)} if files.initial else {})
    train_classifier(
        TrainingSpec(**settings),
        faces={attribute: by_dataset[dataset] for attribute, dataset in spec["labels"].items()},
        directory=Path(snakemake.output.model).parent,
        provenance=collect("classifiers", spec, inputs, {"classifier": spec["seed"]}),
        reconstruct=reconstructor(Path(files.backbone), device(), spec["seed"]) if files.backbone else None,
        device=device(),
        prepare=partial(start_from, directory=Path(files.initial), sha256=spec["initial"].get("sha256"))
        if files.initial
        else None,
    )
