"""A figure in every format, and the numbers it shows."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.present.figures import FigureFiles, draw_figure
from distalign.present.style import write_figure_files
from distalign.store.provenance import by_place, collect
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    spec, kinds = snakemake.params.spec, ("train_logs", "images", "classified", "bias", "quality")
    files = FigureFiles(**{kind: list(map(Path, snakemake.input.get(kind, []))) for kind in kinds})
    figure, data = draw_figure(spec, files)
    # Not the logs: they hold seconds.
    inputs = by_place(file for kind in kinds if kind != "train_logs" for file in snakemake.input.get(kind, []))
    write_figure_files(figure, map(Path, snakemake.output), data, collect("figures", spec, inputs))
