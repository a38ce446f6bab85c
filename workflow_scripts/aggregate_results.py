"""Bring every run's measurements into one tidy table."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.measure.results import collect_results
from distalign.store.parquet import RESULTS, write_table
from distalign.store.provenance import by_place, collect
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    spec, files = snakemake.params.spec, snakemake.input
    results = collect_results(files.bias, files.classified, spec["read"], measured=files.quality)
    inputs = by_place([*files.bias, *files.classified, *files.quality])
    write_table(Path(snakemake.output.results), results, RESULTS, collect("results", spec, inputs))
