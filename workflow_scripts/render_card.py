"""A classifier's card as a page of the report."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.present.pages import card_page
from distalign.store.files import atomic_write_text
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    text = Path(snakemake.input.card).read_text(encoding="utf-8")
    atomic_write_text(Path(snakemake.output.html), card_page(text))
