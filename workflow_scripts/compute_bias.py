"""Bias per prompt, classifier and attribute."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.measure.bias import RunKey, bias_table
from distalign.store.parquet import BIAS, CLASSIFIED, read_table, write_table
from distalign.store.provenance import collect
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    spec, about, path = snakemake.params.spec, snakemake.wildcards, Path(snakemake.input.classified)
    key = RunKey(about.preset, about.run, int(about.seed), about.evaluation)
    rows = bias_table(read_table(path, CLASSIFIED(spec["read"])), key, spec["target"])
    provenance = collect("bias", spec, {"classified": path}, {"run": key.seed})
    write_table(Path(snakemake.output.bias), rows, BIAS, provenance)
