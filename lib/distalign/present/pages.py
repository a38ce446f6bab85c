"""Pages of the report: classifier cards, and where everything comes from."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import markdown
import yaml
from jinja2 import Environment, FileSystemLoader

Provenance = Mapping[str, Any]


def render_page(template: str, words: Mapping[str, Any], **content: Any) -> str:
    """A self-contained HTML page from a template of this folder; `words`: functions it may call."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**words, **content) + "\n"


def card_page(text: str) -> str:
    """A classifier's card, from its Markdown."""
    title = text.partition("\n")[0].lstrip("# ")
    return render_page("card.html", {}, title=title, card=markdown.markdown(text, extensions=["tables"]))


def provenance_page(title: str, found: Iterable[Provenance], settings: Mapping[str, Mapping[str, Any]]) -> str:
    """What made the results: code, packages, machines, stages, settings.

    Args:
        title: of the page.
        found: the provenance of files, as `store.provenance.collect` makes it; empty ones are left out.
        settings: what was configured, by heading.
    """
    records = [record for record in found if record]
    stages: dict[tuple[str, int, str], int] = {}
    for record in records:
        key = (record["stage"], record["stage_version"], _code(record["code"]))
        stages[key] = stages.get(key, 0) + 1
    return render_page(
        "provenance.html",
        {},
        title=title,
        code=_different(records, lambda record: _code(record["code"])),
        machines=_different(records, lambda record: _machine(record["hardware"])),
        versions=_versions(records),
        stages=[(*key, count) for key, count in sorted(stages.items())],
        settings={name: yaml.safe_dump(dict(it), sort_keys=False, width=100) for name, it in settings.items()},
    )


def _different(records: Iterable[Provenance], word: Callable[[Provenance], str]) -> list[str]:
    return list(dict.fromkeys(word(record) for record in records))


def _code(code: Mapping[str, Any]) -> str:
    if not code.get("commit"):
        return "not a git checkout"
    return f"{code['commit'][:12]}{', with changes' if code.get('modified') else ''}"


def _machine(hardware: Mapping[str, Any]) -> str:
    gpus = hardware.get("gpus") or []
    parts = [f"{hardware['cpus']} × {hardware['processor'] or hardware['machine']}", *gpus]
    return ", ".join(parts)


def _versions(records: Iterable[Provenance]) -> dict[str, str]:
    """Package -> version, all of them where files were made with different ones."""
    found: dict[str, list[str]] = {}
    for record in records:
        for package, version in record["versions"].items():
            if version not in found.setdefault(package, []):
                found[package].append(version)
    return {package: ", ".join(versions) for package, versions in found.items()}
