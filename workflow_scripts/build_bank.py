"""Embed labelled faces, or take a ready-made bank: for the face loss to pull towards, or the reader to compare with."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.config.attributes import PAPER_ATTRIBUTES
from distalign.faces.bank import build_face_bank, load_bank, save_bank
from distalign.faces.dataset import load_faces
from distalign.faces.embedding import load_embedder
from distalign.store.provenance import collect, write_provenance
from distalign.workflow import device, job

snakemake: Snakemake

with job(snakemake):
    spec, bank = snakemake.params.spec, Path(snakemake.output.bank)
    settings, inputs = spec["bank"], dict[str, Path]()
    if ready := settings.get("path"):
        inputs["bank"] = Path.cwd() / ready
        save_bank(bank, load_bank(inputs["bank"]))
    else:
        inputs |= {name: Path(snakemake.input[name]) for name in ("faces", "face_embedding")}
        labels = [*PAPER_ATTRIBUTES, *spec.get("finer", [])]
        faces = load_faces(inputs["faces"], "train", labels).first(settings.get("images"))
        network = load_embedder(inputs["face_embedding"], device())
        save_bank(bank, build_face_bank(network, faces))
    write_provenance(bank.with_suffix(".provenance.json"), collect("faces", spec, inputs))
