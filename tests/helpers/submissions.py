"""Print what a dry run would submit to a cluster: one line of rule names per SLURM job; arguments as Snakemake's.

And for every job one line of what it needs: rule, mem_mb, runtime.
"""

import sys
from typing import Any

from snakemake.cli import main
from snakemake.executors.dryrun import Executor

run_job = Executor.run_job


def announce(executor: Executor, job: Any) -> None:
    """Run a job, or a group of jobs, as a dry run does, and name its rules unless it stays on the submit host."""
    jobs = list(job.jobs) if job.is_group() else [job]
    stay = executor.workflow._localrules  # `is_local` holds for every job of a dry run
    if job.is_group() or not (job.rule.norun or job.rule.name in stay):
        print("submitted:", *sorted(part.rule.name for part in jobs))
    for part in jobs:
        print("needs:", part.rule.name, part.resources.get("mem_mb"), part.resources.get("runtime"))
    run_job(executor, job)


if __name__ == "__main__":
    Executor.run_job = announce
    main(["--dry-run", "--quiet", "all", *sys.argv[1:]])
