"""Where the results come from, as a page of the report."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.config.study import load_study
from distalign.present.pages import provenance_page
from distalign.store.files import atomic_write_text, read_json
from distalign.store.parquet import read_provenance
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    preset = load_study(snakemake.config, Path.cwd()).preset
    settings = {
        "config.yaml": snakemake.config,
        f"presets/{preset.name}.yaml, complete": preset.model_dump(mode="json", exclude_none=True, exclude={"name"}),
    }
    found = [read_json(Path(file)) for file in snakemake.input.adapters]
    found += [read_provenance(Path(file)) for file in snakemake.input.parquet]
    page = provenance_page(f"Where the results of preset {preset.name} come from", found, settings)
    atomic_write_text(Path(snakemake.output.html), page)
