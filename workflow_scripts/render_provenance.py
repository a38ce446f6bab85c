"""Where the results come from, as a page of the report."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.present.pages import provenance_page
from distalign.store.files import atomic_write_text, read_json
from distalign.store.parquet import read_provenance
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    preset, settings = snakemake.wildcards.preset, snakemake.params
    found = [read_json(Path(file)) for file in snakemake.input.adapters]
    found += [read_provenance(Path(file)) for file in snakemake.input.parquet]
    pages = {"config.yaml": settings.config, f"presets/{preset}.yaml, complete": settings.spec}
    page = provenance_page(f"Where the results of preset {preset} come from", found, pages)
    atomic_write_text(Path(snakemake.output.html), page)
