"""What the rows of each table took, from the times Snakemake keeps of its jobs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distalign.config.metrics import QUALITY
from distalign.config.study import Study
from distalign.config.tables import Table


@dataclass(frozen=True)
class TableCost:
    """Minutes of the jobs behind a table's rows. `added`: of those that no table before it has asked for."""

    table: str
    title: str
    rows: int
    finetunings: int
    total: float
    added: float


def table_costs(study: Study, benchmarks: Path) -> list[TableCost]:
    """The costs of every table whose jobs have all been timed, in the order of the configuration.

    Finetuning or fitting, the original images of its plan, generating, classifying and measuring count; what sums them
    up takes seconds. A finetuning that was interrupted counts from where it went on.

    Args:
        study: the configuration.
        benchmarks: `results/{preset}/benchmarks`.
    """
    costs, seen = [], set[Path]()
    for name, table in study.tables.items():
        trained = {(run, seed) for run, seed, _ in _evaluated(table) if study.finetuned(run)}
        jobs = {benchmarks / job for job in _jobs(study, table)}
        if not all(job.is_file() for job in jobs):
            continue
        added = _minutes(jobs - seen)
        costs.append(TableCost(name, table.title, len(table.rows), len(trained), _minutes(jobs), added))
        seen |= jobs
    return costs


def _evaluated(table: Table) -> set[tuple[str, int, str]]:
    return {(row.run, seed, row.evaluation) for row in table.rows for seed in row.seeds}


def _jobs(study: Study, table: Table) -> set[str]:
    """Places of the times of all jobs that a table's rows stand on."""
    jobs = set()
    for run, seed, evaluation in _evaluated(table):
        if study.finetuned(run):
            jobs |= {f"finetune/{run}/{seed}.tsv", f"compute_originals/{study.plan_id(run, seed)}.tsv"}
        elif study.adapted(run):
            jobs.add(f"{'convert_adapter' if study.converted(run) else 'fit_method'}/{run}/{seed}.tsv")
        rules = ["generate_images", "classify_images", "compute_bias"]
        rules += ["compute_quality"] if study.preset.quality and not set(QUALITY).isdisjoint(table.columns) else []
        jobs |= {f"{rule}/{run}/{seed}/{evaluation}.tsv" for rule in rules}
    return jobs


def _minutes(jobs: Iterable[Path]) -> float:
    return sum(_seconds(job) for job in sorted(jobs)) / 60


def _seconds(job: Path) -> float:
    """Wall-clock seconds of a job, from Snakemake's benchmark file: a head, then one line per run of the job."""
    _, *lines = job.read_text().splitlines()
    return float(lines[-1].split("\t")[0])


def as_markdown(costs: Sequence[TableCost]) -> str:
    """A Markdown table."""
    lines = ["| table | rows | finetunings | minutes of jobs | not asked for above |", "|---|---|---|---|---|"]
    lines += [f"| `{it.table}` | {it.rows} | {it.finetunings} | {it.total:.0f} | {it.added:.0f} |" for it in costs]
    lines.append(f"| all | | | | {sum(it.added for it in costs):.0f} |")
    return "\n".join(lines)
