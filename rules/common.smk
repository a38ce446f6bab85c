# The checked configuration, and the files of a study as functions of it. No rules here.
import os
import re
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")

ROOT = Path(workflow.basedir)
if str(ROOT / "lib") not in sys.path:  # where the library is not installed: --sdm conda
    sys.path.insert(0, str(ROOT / "lib"))
    os.environ.update(PYTHONPATH=str(ROOT / "lib"))

from distalign.config.study import load_study
from distalign.errors import UserError
from distalign.store.stages import STAGES
from distalign.weights import checksums
from distalign.workflow import Spec, weights_by_place

try:
    STUDY = load_study(config, ROOT)
except UserError as error:
    print(error, file=sys.stderr)
    sys.exit(1)

PRESET = config["preset"]
WEIGHTS = weights_by_place(STUDY.preset)
READY = {name for name, it in STUDY.preset.classifiers.items() if it.weights}
TRAINED = [(run, seed) for run in STUDY.runs if STUDY.trained(run) for seed in STUDY.all_seeds(run)]
PLANS = {STUDY.plan_id(run, seed): (run, seed) for run, seed in TRAINED}
FIGURES_FROM = {
    "images": ["contact_sheet"],
    "classified": ["contact_sheet", "frequencies"],
    "bias": ["frequencies"],
}

# Which target makes which tables: those called `headline...`, those called `ablation...`, and all but the latter.
ABLATIONS = [name for name in STUDY.tables if name.startswith("ablation")]
PAPER = [name for name in STUDY.tables if name not in ABLATIONS]
HEADLINE = [name for name in STUDY.tables if name.startswith("headline")]


def one_of(names):
    """Regular expression of a wildcard that takes these names and no other."""
    return "|".join(map(re.escape, sorted(names))) or "(?!)"


wildcard_constraints:
    preset=re.escape(PRESET),
    run=one_of(STUDY.runs),
    seed=r"\d+",
    evaluation=one_of(STUDY.evaluations),
    dataset=one_of(STUDY.preset.faces),
    classifier=one_of(STUDY.preset.classifiers),
    table=one_of(STUDY.tables),
    figure=one_of(STUDY.figures),
    plan=r"[0-9a-f]{12}",


def table_files(tables):
    """These tables in every format."""
    formats = ["parquet", "csv", "md", "tex", "html", "txt"]
    return expand("results/{p}/tables/{t}.{f}", p=PRESET, t=tables, f=formats)


def figure_files(figures):
    """These figures in every format."""
    return expand("results/{p}/figures/{f}.{x}", p=PRESET, f=figures, x=["pdf", "svg", "png", "parquet"])


def evaluated(tables):
    """(run, seed, evaluation) of every row of these tables, each once."""
    rows = [row for name in tables for row in STUDY.tables[name].rows]
    return list(dict.fromkeys((r.run, seed, r.evaluation) for r in rows for seed in r.seeds))


def per_run(kind, keys):
    """The Parquet files of one kind (images, classified, bias) for (run, seed, evaluation) keys."""
    return [f"results/{PRESET}/{kind}/{run}/{seed}/{evaluation}.parquet" for run, seed, evaluation in keys]


def weights_spec(weights):
    """Where pretrained weights come from, and which they are if they are shipped."""
    source = weights.model_dump()
    return Spec(source, sha256=checksums(source, ROOT))


def headline_figures():
    """The figures that need no images the headline tables do not have."""
    made = {(run, evaluation) for run, _, evaluation in evaluated(HEADLINE)}
    return [
        name
        for name, it in STUDY.figures.items()
        if it.evaluation and {(run, it.evaluation) for run in it.runs} <= made
    ]


def per_figure(kind, figure):
    """The Parquet files of one kind that a figure shows: of the first seed of each of its runs."""
    it = STUDY.figures[figure]
    keys = [(run, STUDY.seeds(run)[0], it.evaluation) for run in it.runs]
    return per_run(kind, keys) if it.kind in FIGURES_FROM[kind] else []


def train_logs(figure):
    """The training logs a figure shows: of every seed."""
    it = STUDY.figures[figure]
    runs = [run for run in it.runs if STUDY.trained(run)] if it.kind == "training_curves" else []
    return [f"results/{PRESET}/runs/{run}/{s}/train_log.parquet" for run in runs for s in STUDY.seeds(run)]


def original_images(job):
    """The original's images of the same noise, which similarity is measured to; none for the original itself."""
    mine = [run for run in STUDY.runs if not STUDY.trained(run)]
    if job.run in mine or not mine:
        return []
    return f"results/{PRESET}/images/{mine[0]}/{job.seed}/{job.evaluation}.parquet"


def adapter(job):
    """The adapter of a run; none for the model as it is."""
    return "results/{preset}/runs/{run}/{seed}/adapter" if STUDY.trained(job.run) else []


def loss_classifier(run):
    """The classifier inside a run's losses."""
    return f"results/{PRESET}/classifiers/{STUDY.runs[run].classifier}/model.safetensors"
