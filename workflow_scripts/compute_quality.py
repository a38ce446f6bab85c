"""Image quality of a run: distances of its images to real pictures, and what such pictures would score."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.measure.bias import RunKey
from distalign.measure.realism import quality_table
from distalign.store.parquet import CLASSIFIED, FEATURES, REFERENCE, RESULTS, read_table, write_table
from distalign.store.provenance import collect
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    spec, about = snakemake.params.spec, snakemake.wildcards
    files = {name: Path(snakemake.input[name]) for name in ("features", "classified", "reference")}
    key = RunKey(about.preset, about.run, int(about.seed), about.evaluation)
    features, reference = read_table(files["features"], FEATURES), read_table(files["reference"], REFERENCE)
    classified = read_table(files["classified"], CLASSIFIED(spec["read"]))
    rows = quality_table(features, classified, spec["classifier"], reference, key)
    write_table(Path(snakemake.output.quality), rows, RESULTS, collect("quality", spec, files, {"run": key.seed}))
