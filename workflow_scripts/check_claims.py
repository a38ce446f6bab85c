"""Which of the paper's claims hold."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.measure.claims import Evidence, decide
from distalign.measure.gradient_study import summarise
from distalign.present.claims import write_claims_files
from distalign.store.parquet import GRADIENT_STUDY, RESULTS, TRAIN_LOG, read_table
from distalign.store.provenance import by_place, collect
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    spec, files = snakemake.params.spec, snakemake.input
    logs: dict[str, list] = {}
    for file in map(Path, files.train_logs):
        logs.setdefault(file.parts[-3], []).append(read_table(file, TRAIN_LOG))
    studies = {
        file.stem: summarise(file.stem, read_table(file, GRADIENT_STUDY)).to_pylist()
        for file in map(Path, files.studies)
    }
    decisions = decide(spec, Evidence(read_table(Path(files.results), RESULTS), logs, studies))
    inputs = {"results": Path(files.results), **by_place(files.studies)}
    write_claims_files(
        decisions, snakemake.wildcards.preset, map(Path, snakemake.output), collect("claims", spec, inputs)
    )
