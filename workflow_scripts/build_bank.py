"""Embed labelled faces, or take a ready-made bank: for the face loss to pull towards, or the reader to compare with."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.faces.bank import build_face_bank, load_bank, save_bank
from distalign.faces.dataset import load_faces
from distalign.faces.embedding import load_embedder
from distalign.workflow import device, job

snakemake: Snakemake

with job(snakemake):
    settings, bank = snakemake.params.spec["bank"], Path(snakemake.output.bank)
    if ready := settings.get("path"):
        save_bank(bank, load_bank(Path.cwd() / ready))
    else:
        faces = load_faces(Path(snakemake.input.faces), "train").first(settings.get("images"))
        network = load_embedder(Path(snakemake.input.face_embedding), device())
        save_bank(bank, build_face_bank(network, faces))
