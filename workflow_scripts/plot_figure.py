"""A figure in every format, and the numbers it shows."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.measure.results import collect_results
from distalign.present.contact_sheet import contact_sheet
from distalign.present.frequencies import frequency_bars
from distalign.present.style import write_figure_files
from distalign.present.training_curves import training_curves
from distalign.store.parquet import CLASSIFIED, IMAGES, TRAIN_LOG, read_table
from distalign.store.provenance import collect
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    spec, files = snakemake.params.spec, snakemake.input
    runs = [entry["run"] for entry in spec["runs"]]
    attributes, classifier, title = spec["attributes"], spec.get("classifier"), spec["title"]
    prompts = spec.get("prompts")
    if spec["kind"] == "training_curves":
        logs = {"/".join(Path(file).parts[-3:-1]): read_table(Path(file), TRAIN_LOG) for file in files.train_logs}
        figure, data = training_curves(logs, title)
    elif spec["kind"] == "frequencies":
        results = collect_results(files.bias, files.classified, spec["read"])
        first = {entry["run"]: (entry["run"], entry["seeds"][0]) for entry in spec["runs"]}
        about = (spec["evaluation"], classifier, spec["align"])
        figure, data = frequency_bars(results, first, attributes, *about, title, prompts)
    else:
        schema = CLASSIFIED(spec["read"])
        pairs = zip(files.images, files.classified, strict=True)
        tables = [(read_table(Path(a), IMAGES), read_table(Path(b), schema)) for a, b in pairs]
        by_run = dict(zip(runs, tables, strict=True))
        figure, data = contact_sheet(by_run, attributes, classifier, title, prompts, spec.get("images", 8))
    write_figure_files(figure, map(Path, snakemake.output), data, collect("figures", spec))
