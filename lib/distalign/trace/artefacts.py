"""The files of results: what each is, which rule made it, where its provenance and its inputs stand."""

import difflib
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from distalign.config.fingerprint import fingerprint
from distalign.errors import UserError
from distalign.miniworld.shipped import MANIFEST
from distalign.store.files import read_json
from distalign.store.parquet import read_provenance
from distalign.store.pretrained import RECORD
from distalign.store.provenance import sha256_input
from distalign.store.usage import read_usage
from distalign.trace.kinds import KINDS, Kind, regular

SHIPPED = Path("resources", "miniworld")
UNCHANGED, CHANGED, NOT_HERE = "unchanged", "CHANGED SINCE", "not here"  # states of inputs
PARTS = ("pretrain", "pretrain_early")  # folders of results that hold what looks like results


@dataclass(frozen=True)
class Input:
    """Something a file was made from: its recorded name and SHA-256, and where it stands, if that is known."""

    name: str
    sha256: str
    path: Path | None

    @property
    def state(self) -> str:
        """Whether it is still what it was."""
        if self.path is None or not self.path.exists():
            return NOT_HERE
        return UNCHANGED if is_recorded(self.path, self.sha256) else CHANGED


@dataclass(frozen=True)
class Artefact:
    """A file, or a folder of files that were made together.

    Attributes:
        results: The folder `results/{preset}`.
        place: Where in it.
        kind: What it is.
        names: Run, seed, evaluation and so on.
    """

    results: Path
    place: str
    kind: Kind
    names: Mapping[str, str]

    @property
    def path(self) -> Path:
        """The file."""
        return self.results / self.place

    @property
    def root(self) -> Path:
        """The repository, or what a bundle was unpacked to."""
        return self.results.parent.parent

    @property
    def what(self) -> str:
        """In words."""
        return self.kind.what.format_map(self.names)

    @property
    def target(self) -> str:
        """What Snakemake is asked for, from the repository."""
        return f"results/{self.results.name}/{self.kind.target.format_map(self.names)}"

    @property
    def again(self) -> str:
        """The command that makes it, for a POSIX shell."""
        command = ["snakemake", "--cores", "all", "--config", f"preset={self.results.name}", "--", self.target]
        return shlex.join(command)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What is recorded of its making; of a fetched or shipped model what is known of it; empty if nothing is."""
        if self.kind.record is None:
            return {}
        record = self.results / self.kind.record.format_map(self.names)
        if not record.is_file():
            return {}
        found: dict[str, Any] = read_json(record) if record.suffix == ".json" else read_provenance(record)
        return found

    @property
    def rule(self) -> str | None:
        """The rule that made it: of several, the one whose log is there."""
        logs = {rule: self._log(rule) for rule in self.kind.rules}
        return next((rule for rule, log in logs.items() if read_usage(log) or log.is_file()), None)

    @property
    def usage(self) -> dict[str, Any] | None:
        """What making it took in all; None where nobody measured."""
        return read_usage(self._log(self.rule)) if self.rule else None

    def _log(self, rule: str) -> Path:
        return self.results / f"logs/{rule}{self.kind.log.format_map(self.names)}.log"

    @property
    def inputs(self) -> list[Input]:
        """What it was made from, as recorded."""
        recorded: dict[str, str] = self.provenance.get("inputs", {})
        return [Input(name, sha256, self._find(name, sha256)) for name, sha256 in recorded.items()]

    def _find(self, name: str, sha256: str) -> Path | None:
        """Where an input stands: the place of its name, or of several the one with these bytes."""
        candidates = [place for place in self._candidates(name) if place.exists()]
        if len(candidates) > 1:
            candidates = [place for place in candidates if is_recorded(place, sha256)]
        return candidates[0] if candidates else None

    def _candidates(self, name: str) -> Iterator[Path]:
        spec, results = self.provenance["spec"], self.results
        if name.partition("/")[0] == "prompts":
            prompts = f"{name.partition('/')[2] or '*'}.json"
            yield from sorted((self.root / "resources" / "prompts").glob(prompts))
        elif name.startswith("backbone/"):  # of a gradient study
            yield results / ("pretrain_early/backbone" if name == "backbone/early" else "backbone")
        elif "/" in name or name in ("backbone", "face_embedding", "concept_reader"):
            yield results / name
        elif name in ("clip", "dino"):
            role = "evaluation" if self.kind.rules[0] in ("classify_images", "make_reference") else "training"
            yield results / "encoders" / role / name
        elif name in ("bank", "reader"):
            yield results / f"{name}.safetensors"
        elif name == "results":
            yield results / "results.parquet"
        elif name in ("images", "classified", "features"):
            yield results / "{}/{run}/{seed}/{evaluation}.parquet".format(name, **self.names)
        elif name == "adapter":
            yield results / "runs/{run}/{seed}/adapter".format_map(self.names)
        elif name == "originals":
            yield results / f"originals/{fingerprint(spec['plan'])[:12]}.parquet"
        elif name == "reference":
            yield results / f"reference/{fingerprint(spec['reference'])[:12]}.parquet"
        elif name == "initial":
            yield results / "initial/{classifier}".format_map(self.names)
        elif name == "evaluation_classifier":
            yield results / "classifiers/evaluation"
        elif name == "classifier":
            named = spec.get("classifier")  # its name, or its settings
            yield from sorted((results / "classifiers").glob(named if isinstance(named, str) else "*"))
        elif name == "faces":
            named = spec["bank"].get("faces")
            yield from sorted((results / "faces").glob(f"{named if isinstance(named, str) else '*'}.parquet"))
        else:
            yield results / "classifiers" / name
            yield results / "faces" / f"{name}.parquet"


def locate(path: Path) -> Artefact:
    """What a path is.

    Raises:
        UserError: there is no such file, or it is none that the workflow makes.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 (links stay: a folder of results may be one)
    if not path.exists():
        raise UserError(f"{path}: no such file.{_nearest(path)}")
    # A run may be called as a folder is; the folder called `results` says what is meant.
    for results in sorted(path.parents, key=lambda it: it.parent.name != "results"):
        place = path.relative_to(results).as_posix()
        for kind in KINDS if results.name not in PARTS else ():
            if match := regular(kind.pattern).fullmatch(place):
                return Artefact(results, place, kind, match.groupdict())
    raise UserError(
        f"{path}: nothing that the workflow makes. Give a file below results/{{preset}}/, such as tables/NAME.parquet, "
        "figures/NAME.parquet, images/RUN/SEED/EVALUATION.parquet or runs/RUN/SEED."
    )


def digest(path: Path, stamped: bool = False) -> str:
    """SHA-256 of a file or folder as provenance records it; computed once for as long as nothing in it changes."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return _digest(path, stamped, tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files))


def is_recorded(path: Path, sha256: str) -> bool:
    """Whether a file or folder is what was recorded, today or when Snakemake's time stamp in a folder counted."""
    return digest(path) == sha256 or (path.is_dir() and digest(path, stamped=True) == sha256)


@cache
def _digest(path: Path, stamped: bool, state: tuple[tuple[Path, int, int], ...]) -> str:
    return sha256_input(path, stamped)


def model_record(artefact: Artefact) -> dict[str, Any]:
    """What is known of a pretrained model: the record of its fetching, or of a shipped one its training."""
    place = artefact.kind.target.format_map(artefact.names).removesuffix("/model.safetensors")
    record = artefact.results / place / RECORD
    if record.is_file():
        facts = {name: value for name, value in read_json(record).items() if name != "files"}
        return {"from": "a hub", **facts}
    manifest = artefact.root / SHIPPED / MANIFEST
    if not manifest.is_file():
        return {}
    components: dict[str, Any] = read_json(manifest)["components"]
    name = place if place in components else Path(place).name
    entry = components.get(name, {})
    files = {artefact.results / place / file: sha256 for file, sha256 in entry.get("sha256", {}).items()}
    if not entry or any(not file.is_file() or digest(file) != sha256 for file, sha256 in files.items()):
        return {}  # another model in this place
    known = {key: entry[key] for key in ("command", "commit", "note") if key in entry}
    return {"from": f"{SHIPPED.as_posix()}/{name}", **known}


def _nearest(path: Path) -> str:
    """What else there is where a file was looked for, the likeliest first."""
    folder = next(parent for parent in path.parents if parent.is_dir())
    wanted = path.relative_to(folder).parts[0]
    names = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
    close = difflib.get_close_matches(wanted, names, n=5, cutoff=0.5) or names[:12]
    return f" In {folder} there is: {', '.join(close)}." if close else f" {folder} is empty."
