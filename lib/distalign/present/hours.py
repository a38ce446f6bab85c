"""How many images and updates the tables of a study ask for, and the hours and disk that makes.

    python -m distalign.present.hours --preset sd15 --images-per-second 9 --seconds-per-iteration 7

The two speeds are a card's, as benchmarks/sd15.py measures them; what is counted is the configuration's.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distalign.config.files import read_yaml
from distalign.config.models import RunSettings
from distalign.config.study import CONFIG_FILE, Study, load_study
from distalign.config.tables import Table
from distalign.errors import UserError

# What the speeds were measured at.
IMAGE_STEPS, ITERATION_IMAGES, ITERATION_STEPS = 25, 24, 21
DIFFERENTIATED = 2  # a step with its backward pass, beside its sampling, in evaluations of the U-Net
PNG_BYTES = 1.7  # per pixel of a photograph
VECTOR_BYTES = 10_000  # per image looked at: encoder features, face embedding, probabilities
STATE = 4  # times the adapter: weights, their average, two moments of AdamW


@dataclass(frozen=True)
class Work:
    """Of some jobs.

    Attributes:
        images: generated for evaluations.
        training_images: sampled for originals and validation.
        updates: of finetunings.
        sampled: all images, in images of IMAGE_STEPS steps.
        finetuned: all updates, in updates of ITERATION_IMAGES images, ITERATION_STEPS steps, all differentiated.
    """

    images: int = 0
    training_images: int = 0
    updates: int = 0
    sampled: float = 0.0
    finetuned: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def hours(self, images_per_second: float, seconds_per_iteration: float) -> float:
        """On one card of these speeds."""
        return (self.sampled / images_per_second + self.finetuned * seconds_per_iteration) / 3600


@dataclass(frozen=True)
class TableWork:
    """What a table asks for, and the part of it that no table before it has asked for."""

    table: str
    finetunings: int
    total: Work
    added: Work


def table_work(study: Study) -> list[TableWork]:
    """The work behind every table, in the order of the configuration.

    Counted are the images of evaluations, the originals of training, its updates and its validations. Fitting other
    methods, and what some of them evaluate beyond plain sampling, is not: `inference_cost` in the tables says how much
    that was.
    """
    found, seen = [], set[str]()
    for name, table in study.tables.items():
        jobs = _jobs(study, table)
        new = {job: work for job, work in jobs.items() if job not in seen}
        trained = sum(job.startswith("finetune/") for job in jobs)
        found.append(TableWork(name, trained, _sum(jobs.values()), _sum(new.values())))
        seen |= jobs.keys()
    return found


def _sum(works: Iterable[Work]) -> Work:
    return sum(works, Work())


def _jobs(study: Study, table: Table) -> dict[str, Work]:
    """The work of each job behind a table's rows, by the job's name."""
    jobs = {}
    for row in table.rows:
        for seed in row.seeds:
            jobs[f"generate/{row.run}/{seed}/{row.evaluation}"] = _generating(study, row.evaluation)
            if study.finetuned(row.run):
                settings = study.runs[row.run]
                jobs[f"finetune/{row.run}/{seed}"] = _finetuning(study, settings)
                jobs[f"originals/{study.plan_id(row.run, seed)}"] = _originals(settings)
    return jobs


def _generating(study: Study, evaluation: str) -> Work:
    how = study.evaluations[evaluation]
    prompts = _prompts(study, how.prompt_set, how.prompts)
    images = min(prompts, how.at_most or prompts) * how.images_per_prompt
    return Work(images=images, sampled=images * how.sampler_steps / IMAGE_STEPS)


def _prompts(study: Study, prompt_set: str, split: str) -> int:
    """How many prompts a split has: of one list, or of several by group."""
    concepts = study.prompts[prompt_set].get(split, {}).get("concepts", ())
    return sum(map(len, concepts.values())) if isinstance(concepts, Mapping) else len(concepts)


def _originals(settings: RunSettings) -> Work:
    iterations = min(settings.iterations, settings.noise_period or settings.iterations)
    images = iterations * settings.images_per_step
    return Work(training_images=images, sampled=images * _mean(settings.sampler_steps) / IMAGE_STEPS)


def _finetuning(study: Study, settings: RunSettings) -> Work:
    images = 0
    if settings.validate_every:
        validations = 1 + -(-settings.iterations // settings.validate_every)
        prompts = sum(_prompts(study, name, "validation") for name in settings.prompt_sets)
        images = validations * prompts * settings.validation_images
    steps = _mean(settings.sampler_steps)
    share = differentiated_share(settings, steps)
    size = settings.images_per_step / ITERATION_IMAGES * steps / ITERATION_STEPS
    weight = size * (1 + DIFFERENTIATED * share) / (1 + DIFFERENTIATED)
    return Work(
        training_images=images,
        updates=settings.iterations,
        sampled=images * max(settings.sampler_steps) / IMAGE_STEPS,
        finetuned=settings.iterations * weight,
    )


def differentiated_share(settings: RunSettings, steps: float) -> float:
    """The share of an update's steps that is differentiated; half of a chain that begins at random."""
    gradient = settings.gradient
    if gradient.truncate is not None:
        return 0.5
    wanted = gradient.steps or gradient.last
    return 1.0 if wanted is None else min(1.0, wanted / steps)


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)


def as_markdown(works: Sequence[TableWork], images_per_second: float, seconds_per_iteration: float) -> str:
    """A Markdown table; hours are of one card."""
    head = "| table | finetunings | updates | images of training | images | hours | not asked for above |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    speeds = images_per_second, seconds_per_iteration
    for it in works:
        total, hours = it.total, f"{it.total.hours(*speeds):,.0f} | {it.added.hours(*speeds):,.0f}"
        counts = f"{total.updates:,} | {total.training_images:,} | {total.images:,}"
        lines.append(f"| `{it.table}` | {it.finetunings} | {counts} | {hours} |")
    every = _sum(it.added for it in works)
    counts = f"{every.updates:,} | {every.training_images:,} | {every.images:,}"
    lines.append(f"| all | | {counts} | | {every.hours(*speeds):,.0f} |")
    return "\n".join(lines)


def disk(works: Sequence[TableWork], finetunings: int, side: int, adapter_megabytes: float) -> float:
    """GB that the tables' images, features and adapters take, models and data sets not counted."""
    every = _sum(it.added for it in works)
    looked_at = every.images + every.training_images
    adapters = finetunings * (1 + STATE) * adapter_megabytes * 1e6
    return (every.images * side**2 * PNG_BYTES + looked_at * VECTOR_BYTES + adapters) / 1e9


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m distalign.present.hours", description=__doc__)
    parser.add_argument("--preset", default="sd15")
    parser.add_argument("--images-per-second", type=_positive, required=True, help=f"of {IMAGE_STEPS} steps")
    parser.add_argument(
        "--seconds-per-iteration", type=_positive, required=True,
        help=f"with all steps: {ITERATION_IMAGES} images, {ITERATION_STEPS} steps",
    )  # fmt: skip
    parser.add_argument("--tables", nargs="+", metavar="TABLE", help="only these")
    parser.add_argument("--side", type=_positive, default=512, help="of an image in pixels")
    parser.add_argument("--adapter-megabytes", type=_positive, default=33, help="of one adapter")
    options = parser.parse_args(arguments)
    root = Path.cwd()
    try:
        study = load_study({**read_yaml(root / CONFIG_FILE), "preset": options.preset}, root)
        works = table_work(_only(study, options.tables))
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(as_markdown(works, options.images_per_second, options.seconds_per_iteration))
    trained = {(row.run, seed) for it in works for row in study.tables[it.table].rows for seed in row.seeds}
    count = sum(study.finetuned(run) for run, _ in trained)
    size = disk(works, count, int(options.side), options.adapter_megabytes)
    print(f"\nDisk: about {size:,.0f} GB of results, beside models and data sets.")
    return 0


def _only(study: Study, tables: Sequence[str] | None) -> Study:
    if tables is None:
        return study
    if unknown := [name for name in tables if name not in study.tables]:
        raise UserError(f"--tables: {unknown[0]!r} is unknown; {CONFIG_FILE} has {', '.join(study.tables)}")
    return replace(study, tables={name: table for name, table in study.tables.items() if name in tables})


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("should be above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
