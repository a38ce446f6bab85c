"""Embed the labelled faces that the independent reader compares with."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.classifiers.reader import build_reader_bank
from distalign.encoders import load_encoder
from distalign.faces.bank import save_bank
from distalign.faces.dataset import load_faces
from distalign.workflow import device, job

snakemake: Snakemake

with job(snakemake):
    spec = snakemake.params.spec
    encoder = load_encoder(spec["kind"], Path(snakemake.input.encoder), spec["encoder"]["antialias"]).to(device())
    faces = load_faces(Path(snakemake.input.faces), "train")
    bank = build_reader_bank(encoder, faces, spec["chip"]["size"], spec["chip"]["expand"], device())
    save_bank(Path(snakemake.output.reader), bank)
