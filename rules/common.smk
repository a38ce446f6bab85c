# The checked configuration, and the files of a study as functions of it. No rules here.
import gc
import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.0")

gc.set_threshold(200_000, 20, 100)  # of thousands of jobs nothing is garbage: looking for it often is lost time

ROOT = Path(workflow.basedir)
if str(ROOT / "lib") not in sys.path:  # where the library is not installed: --sdm conda
    sys.path.insert(0, str(ROOT / "lib"))
    os.environ.update(PYTHONPATH=str(ROOT / "lib"))

from distalign.config.figures import figure_images, figure_logs
from distalign.config.methods import METHODS
from distalign.config.metrics import INFERENCE_COST, INFERENCE_SECONDS, QUALITY, SECONDS
from distalign.config.gradient_studies import early_spec
from distalign.config.models.run import OCCUPATIONS
from distalign.config.study import load_study
from distalign.errors import UserError
from distalign.exclusive import busy, cancel_left_over_jobs, claim, owner, remove_stale_locks
from distalign.store.stages import STAGES
from distalign.weights import checksums
from distalign.workflow import Spec, weights_by_place

try:
    STUDY = load_study(config, ROOT)
except UserError as error:
    print(error, file=sys.stderr)
    sys.exit(1)

PRESET = config["preset"]
RESULTS = Path("results", PRESET)
WEIGHTS = weights_by_place(STUDY.preset)
READY = {name for name, it in STUDY.preset.classifiers.items() if it.weights}
FETCHED_CLASSIFIERS = [name for name in READY if STUDY.preset.classifiers[name].weights.source == "hub"]
ADAPTED = dict.fromkeys(run for run in STUDY.runs if STUDY.adapted(run))
ORIGINAL = next((run for run in STUDY.runs if run not in ADAPTED), None)
FINETUNED = [run for run in ADAPTED if STUDY.finetuned(run)]
CONVERTED = [run for run in ADAPTED if STUDY.converted(run)]
FITTED = [run for run in ADAPTED if not STUDY.finetuned(run) and not STUDY.converted(run)]
PLANS = {STUDY.plan_id(run, seed): (run, seed) for run in FINETUNED for seed in STUDY.all_seeds(run)}
LOOKING = {
    "clip": f"results/{PRESET}/encoders/training/clip",
    "dino": f"results/{PRESET}/encoders/training/dino",
    "face_embedding": f"results/{PRESET}/face_embedding",
}
REFERENCES = {STUDY.reference_id(it): it for it in STUDY.evaluations if STUDY.preset.quality}
FIGURES_FROM = {
    "images": ["contact_sheet"],
    "classified": ["contact_sheet", "frequencies", "tradeoff", "guidance_sweep"],
    "bias": ["frequencies", "tradeoff", "guidance_sweep"],
    "quality": ["tradeoff", "guidance_sweep"],
}

# Which target makes which tables: those called `headline...`, those called `ablation...`, and all but the latter.
# Figures called `ablation...` go with these tables.
ABLATIONS = [name for name in STUDY.tables if name.startswith("ablation")]
ABLATION_FIGURES = [name for name in STUDY.figures if name.startswith("ablation")]
PAPER = [name for name in STUDY.tables if name not in ABLATIONS]
PAPER_FIGURES = [name for name in STUDY.figures if name not in ABLATION_FIGURES]
HEADLINE = [name for name in STUDY.tables if name.startswith("headline")]

if workflow.is_main_process:
    if other := owner(RESULTS):
        print(busy(RESULTS, other), file=sys.stderr)
    for lock in remove_stale_locks(RESULTS, Path(".snakemake/locks")):
        print(f"{lock}: removed; the Snakemake that left it is no longer alive", file=sys.stderr)


def begin():
    """Make sure that no other Snakemake is at work on these results, and that none of its jobs is left."""
    try:
        workflow.claimed = claim(RESULTS)  # held until this process ends
    except UserError as error:
        raise WorkflowError(str(error))
    if left := cancel_left_over_jobs(PRESET, Path.cwd()):
        print(f"SLURM jobs of a Snakemake that is no longer alive, cancelled: {', '.join(left)}", file=sys.stderr)


def needs(rule, **own):
    """Memory and minutes of a rule's jobs: its own, the size of Stable Diffusion 1.5, where the preset says nothing."""
    return own | STUDY.preset.job.needs.get(rule, {})


def one_of(names):
    """Regular expression of a wildcard that takes these names and no other."""
    return "|".join(map(re.escape, sorted(names))) or "(?!)"


def adapted_by(runs):
    """Regular expression of these runs among all that have an adapter, as one of their names or none of the others'.

    The shorter of the two, because Snakemake goes through it for every file of every job.
    """
    others = [run for run in ADAPTED if run not in set(runs)]
    return one_of(runs) if len(runs) <= len(others) else rf"(?!(?:{one_of(others)})(?:/|$))[^/]+"


wildcard_constraints:
    preset=re.escape(PRESET),
    run=r"[^/]+",  # not their names, which may be thousands; `STUDY.runs` knows them
    seed=r"\d+",
    evaluation=one_of(STUDY.evaluations),
    dataset=one_of(STUDY.preset.faces),
    classifier=one_of(STUDY.preset.classifiers),
    table=one_of(STUDY.tables),
    figure=one_of(STUDY.figures),
    study=one_of(STUDY.gradient_studies),
    plan=r"[0-9a-f]{12}",
    reference=one_of(REFERENCES),


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


def quality_of(tables):
    """Image quality of every row of these tables; none where the preset names no real pictures."""
    return per_run("quality", evaluated(tables)) if REFERENCES else []


def shows_quality(table):
    """Whether a table has a column of image quality."""
    return not set(QUALITY).isdisjoint(STUDY.tables[table].columns)


def shows_costs(table):
    """Whether a table has a column of what generating costs."""
    return not {INFERENCE_COST, INFERENCE_SECONDS}.isdisjoint(STUDY.tables[table].columns)


def logs_of(table):
    """The logs of the finetuning or fitting behind a table's rows."""
    keys = dict.fromkeys((run, seed) for run, seed, _ in evaluated([table]) if run in ADAPTED)
    return [f"results/{PRESET}/runs/{run}/{seed}/train_log.parquet" for run, seed in keys]


def figure_shows_quality(figure):
    """Whether a figure shows image quality, and the preset has it."""
    it = STUDY.figures[figure]
    shown = [getattr(it, "preservation", None), *getattr(it, "metrics", [])]
    return bool(REFERENCES) and not set(QUALITY).isdisjoint(shown)


def weights_spec(weights):
    """Where pretrained weights come from, and which they are if they are shipped."""
    source = weights.model_dump()
    return Spec(source, sha256=checksums(source, ROOT))


def headline_figures():
    """The figures of nothing but the headline tables' images and trainings."""
    images = set(evaluated(HEADLINE))
    trainings = {(run, seed) for run, seed, _ in images}
    return [
        name
        for name in PAPER_FIGURES
        if images and images.issuperset(figure_images(STUDY, name)) and trainings.issuperset(figure_logs(STUDY, name))
    ]


def per_figure(kind, figure):
    """The Parquet files of one kind that a figure is drawn from."""
    return per_run(kind, figure_images(STUDY, figure)) if STUDY.figures[figure].kind in FIGURES_FROM[kind] else []


def train_logs(figure):
    """The training logs a figure shows."""
    return [f"results/{PRESET}/runs/{run}/{seed}/train_log.parquet" for run, seed in figure_logs(STUDY, figure)]


def run_provenance():
    """Where the adapters come from that the paper's tables show."""
    keys = dict.fromkeys((run, seed) for run, seed, _ in evaluated(PAPER) if run in ADAPTED)
    return [f"results/{PRESET}/runs/{run}/{seed}/provenance.json" for run, seed in keys]


def report_pages():
    """The pages of the report that are neither tables nor figures."""
    cards = [f"classifier_{classifier}" for classifier in STUDY.preset.classifiers]
    return expand("results/{p}/report/{page}.html", p=PRESET, page=[*cards, "provenance"])


def original_images(job):
    """The original's images of the same noise, which similarity is measured to; none for the original itself."""
    if ORIGINAL is None or job.run not in ADAPTED:
        return []
    return f"results/{PRESET}/images/{ORIGINAL}/{job.seed}/{job.evaluation}.parquet"


def adapter(job):
    """The adapter of a run, or what another method fitted; none for the model as it is."""
    return "results/{preset}/runs/{run}/{seed}/adapter" if job.run in ADAPTED else []


def looking(job):
    """What looks at images while a method samples; nothing for most methods."""
    return {**LOOKING, "classifier": loss_classifier(job.run)} if METHODS[STUDY.runs[job.run].method].looks else {}


def loss_classifier(run):
    """The classifier inside a run's losses."""
    return f"results/{PRESET}/classifiers/{STUDY.runs[run].classifier}/model.safetensors"


def faces_of(user):
    """The labelled faces that a bank or reader is made from; none where there is none, or it is ready-made."""
    return f"results/{PRESET}/faces/{user.faces}.parquet" if user and user.faces else []


def study_backbones(job):
    """The models a study looks at, by name."""
    place = {"shipped": "results/{preset}/backbone", "early": "results/{preset}/pretrain_early/backbone"}
    return [place[name] for name in STUDY.gradient_studies[job.study].backbones]


def study_encoders(job):
    """The image loss's encoders, where a study computes that loss."""
    wanted = STUDY.gradient_studies[job.study].kind == "loss"
    return [f"results/{{preset}}/encoders/training/{kind}" for kind in ("clip", "dino")] if wanted else []
