"""README.md of a bundle: what is what, where it comes from, how to make it again."""

from collections.abc import Sequence
from pathlib import Path

from distalign.trace import words
from distalign.trace.artefacts import Artefact
from distalign.trace.bundle import IMAGES, MANIFEST, RESULTS


def readme(root: Path, results: Path, tables: Sequence[Artefact], stale: Sequence[str], images: bool) -> str:
    """The text, as Markdown.

    Args:
        root: The repository.
        results: The folder results/{preset} in it.
        tables: Its tables.
        stale: Those that were made with other settings than config.yaml has.
        images: Whether the bundle has the images.
    """
    preset = results.name
    place = results.relative_to(root).as_posix()
    kinds = [*RESULTS, *([IMAGES] if images else [])]
    there = [(name, what) for name, patterns, what in kinds if any(_any(results, it) for it in patterns)]
    absent = [name for name, patterns, _ in kinds if not any(_any(results, it) for it in patterns)]
    records = [table.provenance for table in tables]
    commits = dict.fromkeys(words.code(record) for record in records)
    machines = dict.fromkeys(words.machine(record) for record in records)
    checkout = next((record["code"]["commit"] for record in records if record["code"].get("commit")), "COMMIT")
    lines = [
        f"# Results of distalign, preset {preset}",
        "",
        "Finetuning a text-to-image diffusion model for fairness: what was configured, what came out, and where every "
        "number of it comes from.",
        "",
        f"- Code: {'; '.join(commits)}.",
        f"- Machine: {'; '.join(machines)}.",
        f"- Tables: {', '.join(table.names['table'] for table in tables)}.",
        *([f"- Made with other settings than config.yaml has now: {', '.join(stale)}."] if stale else []),
        *([f"- Had not been made, so not in here: {', '.join(absent)}."] if absent else []),
        "",
        "## What is what",
        "",
        "| place | what |",
        "|---|---|",
        f"| `{MANIFEST}` | size and SHA-256 of every other file |",
        "| `config.yaml`, `presets/` | what was compared, and in which world: models, data, budgets |",
        "| `envs/requirements.txt` | every package with its version and hashes |",
        "| `resources/prompts/` | the prompts |",
        *(f"| `{place}/{name}` | {what} |" for name, what in there),
        "",
        "Parquet files carry in their metadata (key `distalign`) what they were made from: settings and their "
        "fingerprint, SHA-256 of the inputs, seeds, commit, packages, machine.",
        "",
        "## Look at it",
        "",
        "```bash",
        "distalign verify BUNDLE.tar.gz                           # every checksum, before unpacking",
        f"distalign explain {place}/tables/{tables[0].names['table']}.md  # in the folder this is unpacked to",
        "```",
        "",
        "## Make it again",
        "",
        "In a clone of distalign:",
        "",
        "```bash",
        f"git checkout {checkout}",
        "make setup",
        f".venv/bin/snakemake --cores all --config preset={preset}  # with the config.yaml and presets/ in here",
        f".venv/bin/python -m distalign diff {place} UNPACKED/{place}",
        "```",
        "",
        "Not in here, because those commands make or fetch them: pretrained models, faces"
        f"{'' if images else ', generated images (`distalign archive --images` packs them)'}.",
    ]
    return "\n".join(lines) + "\n"


def _any(results: Path, pattern: str) -> bool:
    return next(iter(results.glob(pattern)), None) is not None
