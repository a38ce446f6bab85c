"""Embed labelled faces: those the face loss pulls towards, or those the independent reader compares with."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.faces.bank import build_face_bank, save_bank
from distalign.faces.dataset import load_faces
from distalign.faces.embedding import load_embedder
from distalign.workflow import device, job

snakemake: Snakemake

with job(snakemake):
    faces = load_faces(Path(snakemake.input.faces), "train").first(snakemake.params.spec["bank"].get("images"))
    network = load_embedder(Path(snakemake.input.face_embedding), device())
    save_bank(Path(snakemake.output.bank), build_face_bank(network, faces))
