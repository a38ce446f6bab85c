"""A table in every format."""

from pathlib import Path

import pyarrow as pa
from snakemake.iocontainers import Snakemake

from distalign.measure.results import collect_results, training_seconds
from distalign.present.tables import build_table, write_table_files
from distalign.store.provenance import by_place, collect
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    spec, files = snakemake.params.spec, snakemake.input
    measured = [*files.quality, *files.costs]
    results = collect_results(files.bias, files.classified, spec["read"], spec.get("target"), measured)
    seconds = training_seconds(spec["rows"], map(Path, files.train_logs))
    table = build_table(snakemake.wildcards.table, spec, pa.concat_tables([results, seconds]))
    # Not the logs and costs: they hold seconds, and a table of other columns has the same bytes whenever it is made.
    inputs = by_place([*files.bias, *files.classified, *files.quality])
    write_table_files(table, map(Path, snakemake.output), collect("tables", spec, inputs))
