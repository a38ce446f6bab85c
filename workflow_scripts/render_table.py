"""A table in every format."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.measure.results import collect_results
from distalign.present.tables import build_table, write_table_files
from distalign.store.provenance import collect
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    spec, files = snakemake.params.spec, snakemake.input
    results = collect_results(files.bias, files.classified, spec["read"], spec.get("target"), files.quality)
    table = build_table(snakemake.wildcards.table, spec, results)
    write_table_files(table, map(Path, snakemake.output), collect("tables", spec))
