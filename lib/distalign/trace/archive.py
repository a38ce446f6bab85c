"""Pack the results of a preset into one file that says what it is: `distalign archive results/mini -o BUNDLE.tar.gz`.

It holds configuration, presets, environment lock, adapters, tables, figures, results and provenance, a README.md and a
MANIFEST.json with the size and SHA-256 of each file. The same results give the same bytes.
"""

import argparse
import gzip
import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from distalign.config.files import read_yaml
from distalign.config.fingerprint import fingerprint
from distalign.config.study import CONFIG_FILE, Study, load_study
from distalign.errors import UserError
from distalign.exclusive import busy, owner
from distalign.secrets import redact, secrets_of_environment
from distalign.store.files import atomic_file, sha256_file
from distalign.trace import words
from distalign.trace.artefacts import UNCHANGED, Artefact, locate
from distalign.trace.bundle import MANIFEST, README, collect_files, write_manifest
from distalign.trace.readme import readme

TEXT = {".yaml", ".json", ".md", ".csv", ".tex", ".html", ".txt", ".svg", ".in", ".cff"}
LEVEL = 6  # of gzip: named, so that a later default changes no bytes
BLOCK = 1 << 20
MODE = 0o644


def main(arguments: Sequence[str]) -> int:
    """Write the bundle and print what it holds.

    Raises:
        UserError: results are missing, were changed since, are being made, or hold a secret; says what to do.
    """
    parser = argparse.ArgumentParser(prog="distalign archive", description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, metavar="RESULTS", help="a folder results/{preset}")
    parser.add_argument("-o", "--output", type=Path, metavar="BUNDLE", help="default: distalign-{preset}.tar.gz")
    parser.add_argument("--images", action="store_true", help="put the generated images in too")
    options = parser.parse_args(arguments)
    results = options.results.absolute()
    bundle = options.output or Path(f"distalign-{results.name}.tar.gz")
    stale = archive(results, bundle, options.images)
    lines = [f"{bundle}: {words.size(bundle.stat().st_size)} (sha256 {sha256_file(bundle)})"]
    words.say([*(f"not as {CONFIG_FILE} says now: {name}" for name in stale), *lines])
    return 0


def archive(results: Path, bundle: Path, images: bool = False) -> list[str]:
    """Write the bundle of a preset's results.

    Args:
        results: The folder results/{preset} of a clone.
        bundle: Where to write; appears when it is complete.
        images: Whether the generated images go in.

    Returns:
        The tables that were made with other settings than config.yaml has now; README.md names them too.

    Raises:
        UserError: as `main`.
    """
    root, preset = results.parent.parent, results.name
    tables = _tables(results)
    if not (root / CONFIG_FILE).is_file():
        raise UserError(f"{root / CONFIG_FILE}: no such file. Give a folder results/{{preset}} of a clone.")
    if other := owner(results):
        raise UserError(busy(results, other))
    study = load_study({**read_yaml(root / CONFIG_FILE), "preset": preset}, root)
    stale = [table.place for table in tables if not _as_configured(study, table)]
    for table in tables:
        _check_inputs(table)
    files = collect_files(root, results, images)
    prompts = [source.file for source in study.preset.prompts.values() if (root / source.file).is_file()]
    files = dict(sorted({**files, **{name: root / name for name in prompts}}.items()))
    texts = {README: readme(root, results, tables, stale, images).encode()}
    _check_secrets(files)
    manifest = write_manifest(preset, files, texts)
    with atomic_file(bundle) as handle:
        _pack(handle, f"distalign-{preset}", {MANIFEST: manifest, **texts}, files)
    return stale


def _tables(results: Path) -> list[Artefact]:
    tables = [locate(path) for path in sorted(results.glob("tables/*.parquet"))]
    if not tables:
        raise UserError(
            f"{results}: no tables there to pack. Make them first: `snakemake --cores all --config "
            f"preset={results.name}`, or `make paper`."
        )
    return tables


def _as_configured(study: Study, table: Artefact) -> bool:
    """Whether a table was made with the settings that the configuration has now."""
    name = table.names["table"]
    if name not in study.tables:
        return False
    return table.provenance.get("fingerprint") == fingerprint({**study.table_spec(name), "read": study.read()})


def _check_inputs(table: Artefact) -> None:
    """Refuse a table that is not the table of the files beside it."""
    for it in table.inputs:
        if it.state != UNCHANGED:
            raise UserError(
                f"{table.path}: was made from {it.name}, which is {it.state.lower()}. Make the table again first: "
                f"{table.again}"
            )


def _check_secrets(files: Mapping[str, Path]) -> None:
    """Refuse files that hold a secret of the environment, or in text what looks like one."""
    for path in files.values():
        if name := _secret_inside(path):
            what = f"holds the value of the environment variable {name}"
        elif path.suffix in TEXT and (line := _line_of_secret(path)):
            what = f"line {line} holds what looks like a token or a password"
        else:
            continue
        raise UserError(f"{path}: {what}; nothing was packed. Take it out, and run again what was made with it.")


def _secret_inside(path: Path) -> str | None:
    """The name of the secret of the environment that is among a file's bytes."""
    secrets = {value.encode(): name for value, name in secrets_of_environment().items()}
    longest, end = max(map(len, secrets), default=0), b""
    with path.open("rb") as handle:
        while secrets and (block := handle.read(BLOCK)):
            end = end[-longest:] + block
            for value, name in secrets.items():
                if value in end:
                    return name
    return None


def _line_of_secret(path: Path) -> int | None:
    text = path.read_text(encoding="utf-8", errors="replace")
    if redact(text) == text:
        return None
    return next((number for number, line in enumerate(text.splitlines(), 1) if redact(line) != line), 1)


def _pack(handle: BinaryIO, folder: str, texts: Mapping[str, bytes], files: Mapping[str, Path]) -> None:
    """The manifest first, then everything by name, without owners and times."""
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=handle, compresslevel=LEVEL, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as opened,
    ):
        for place, content in _members(texts, files):
            info = tarfile.TarInfo(f"{folder}/{place}")
            info.mode = MODE
            if isinstance(content, bytes):
                info.size = len(content)
                opened.addfile(info, io.BytesIO(content))
            else:
                info.size = content.stat().st_size
                with content.open("rb") as source:
                    opened.addfile(info, source)


def _members(texts: Mapping[str, bytes], files: Mapping[str, Path]) -> Iterator[tuple[str, bytes | Path]]:
    yield MANIFEST, texts[MANIFEST]
    rest: dict[str, bytes | Path] = {**files, **{place: text for place, text in texts.items() if place != MANIFEST}}
    yield from sorted(rest.items())
