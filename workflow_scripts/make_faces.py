"""Make a face data set: rendered portraits, or a published data set, with labels and detected boxes."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.datasets.writing import write_published
from distalign.faces.detector import Detector
from distalign.miniworld.facesets import render_faces
from distalign.store.provenance import collect
from distalign.workflow import device, job

snakemake: Snakemake

with job(snakemake):
    spec, faces = snakemake.params.spec, Path(snakemake.output.faces)
    detector = Detector(**spec["detector"])
    provenance = collect("faces", spec, seeds={"faces": spec["seed"]})
    if spec["source"] == "rendered":
        identities = spec.get("identities", spec["images"])
        pictures = max(1, spec["images"] // identities)
        render_faces(faces, identities, pictures, spec["seed"], detector, provenance)
    else:
        write_published(faces, spec, Path.cwd(), detector.to(device()), provenance, device())
