"""What a bundle of results holds, and its manifest."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distalign.errors import UserError
from distalign.store.files import TIMESTAMP, sha256_file

MANIFEST = "MANIFEST.json"
README = "README.md"
FORMAT = 1
LARGEST_MANIFEST = 1 << 26  # bytes; 300,000 files

# Below the repository.
PROJECT = (
    "config.yaml", "presets/*.yaml", "envs/requirements.in", "envs/requirements.txt", "envs/distalign.yaml", "LICENSE",
    "CITATION.cff",
)  # fmt: skip
# Below results/{preset}, with what README.md says of it.
RESULTS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("tables/", ("tables/*",), "the tables: .parquet (one row per cell), .csv, .md, .tex, .html, .txt"),
    ("figures/", ("figures/*",), "the figures: .pdf, .svg, .png, and .parquet with the numbers they show"),
    ("results.parquet", ("results.parquet",), "every measurement behind the paper's tables, per prompt and per run"),
    ("claims.*", ("claims.*",), "which of the paper's claims hold"),
    ("report/", ("report/*.html",), "cards of the classifiers, and where everything comes from, to read"),
    (
        "runs/{run}/{seed}/",
        ("runs/*/*/spec.json", "runs/*/*/provenance.json", "runs/*/*/train_log.parquet", "runs/*/*/adapter/**/*"),
        "adapter/ (for `load_lora_weights` or `load_textual_inversion` of diffusers), its complete settings "
        "(spec.json), training log, and where it comes from (provenance.json)",
    ),
    ("bias/", ("bias/*/*/*.parquet",), "bias per prompt, classifier and attribute"),
    ("classified/", ("classified/*/*/*.parquet",), "what was seen in each image: face, perceived classes, similarity"),
    ("quality/, cost/", ("quality/*/*/*.parquet", "cost/*/*/*.parquet"), "image quality; what generating cost"),
    ("gradient_studies/", ("gradient_studies/*.parquet",), "what the gradient estimators do"),
    ("classifiers/", ("classifiers/*/metrics.parquet", "classifiers/*/card.md"), "how good the classifiers are"),
    (
        "fetched.json, *.provenance.json",
        ("**/fetched.json", "*.provenance.json"),
        "which pretrained models and faces were used: revisions and SHA-256 sums",
    ),
    ("logs/", ("logs/**/*.usage.json",), "what each job took: seconds, memory, energy"),
)
IMAGES = ("images/", ("images/*/*/*.parquet",), "the generated images, with the seed of each one's noise")


@dataclass(frozen=True)
class Entry:
    """A file as the manifest has it."""

    size: int
    sha256: str


def collect_files(root: Path, results: Path, images: bool) -> dict[str, Path]:
    """The files of a bundle by their place in it, which is that below the repository."""
    kinds = [*RESULTS, *([IMAGES] if images else [])]
    below = [f"{results.relative_to(root).as_posix()}/{pattern}" for _, patterns, _ in kinds for pattern in patterns]
    found = {
        path.relative_to(root).as_posix(): path
        for pattern in (*PROJECT, *below)
        for path in root.glob(pattern)
        if path.is_file() and "state" not in path.parts and not path.name.endswith((".tmp", ".old", TIMESTAMP))
    }
    return dict(sorted(found.items()))


def write_manifest(preset: str, files: Mapping[str, Path], texts: Mapping[str, bytes]) -> bytes:
    """The manifest of files and of texts made for the bundle, by their places, as JSON."""
    entries = {name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for name, path in files.items()}
    entries |= {name: {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()} for name, text in texts.items()}
    content = {"distalign_bundle": FORMAT, "preset": preset, "files": dict(sorted(entries.items()))}
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def read_manifest(data: bytes, bundle: Path) -> dict[str, Entry]:
    """The files a manifest lists.

    Raises:
        UserError: no manifest of a bundle, or one of a later format.
    """
    try:
        content = json.loads(data)
        if content["distalign_bundle"] != FORMAT:
            raise UserError(
                f"{bundle}: a bundle of format {content['distalign_bundle']!r}; this version of distalign reads format "
                f"{FORMAT}. Use the version that made it."
            )
        return dict(_entries(content["files"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{bundle}: its {MANIFEST} is damaged ({error!r}). Get the bundle anew.") from None


def _entries(files: Mapping[str, Any]) -> Iterator[tuple[str, Entry]]:
    for name, entry in files.items():
        size, sha256 = entry["bytes"], entry["sha256"]
        if type(size) is not int or size < 0 or not isinstance(sha256, str):
            raise ValueError(f"the entry of {name!r}")
        yield name, Entry(size, sha256)
