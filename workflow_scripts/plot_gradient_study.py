"""The figure of a gradient study in every format, and the numbers it shows."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.present.gradient_study import gradient_figure
from distalign.present.style import write_figure_files
from distalign.store.parquet import GRADIENT_STUDY, read_table
from distalign.store.provenance import by_place, collect
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    spec = snakemake.params.spec
    inputs = by_place([snakemake.input.rows])
    figure, data = gradient_figure(read_table(Path(snakemake.input.rows), GRADIENT_STUDY), spec["title"])
    write_figure_files(figure, map(Path, snakemake.output), data, collect("figures", spec, inputs))
