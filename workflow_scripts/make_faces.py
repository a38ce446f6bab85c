"""Make a face data set: rendered portraits with their labels and detected boxes."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.errors import UserError
from distalign.faces.detector import Detector
from distalign.miniworld.facesets import render_faces
from distalign.store.provenance import collect
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    spec = snakemake.params.spec
    if spec["source"] != "rendered":
        raise UserError(
            f"faces.{snakemake.wildcards.dataset}.source: {spec['source']} cannot be read yet. Write the data set as a "
            f"Parquet file with the columns of docs/files.md to {snakemake.output.faces}, and run again."
        )
    identities = spec.get("identities", spec["images"])
    render_faces(
        Path(snakemake.output.faces),
        identities=identities,
        pictures=max(1, spec["images"] // identities),
        seed=spec["seed"],
        detector=Detector(**spec["detector"]),
        provenance=collect("faces", spec, seeds={"faces": spec["seed"]}),
    )
