"""Whether what files were made from is still what it was: `distalign check FILE...`.

Every input that is here is read and compared with the SHA-256 that was recorded when it was used, and so are the inputs
of that input, down to the shipped models. Exit status 0: all are unchanged; 1: one changed.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distalign.errors import UserError
from distalign.trace import words
from distalign.trace.artefacts import CHANGED, UNCHANGED, Artefact, locate


@dataclass
class Findings:
    """Of all files: how many inputs are in which state, and lines about those that changed or are not here."""

    counts: dict[str, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    seen: set[Path] = field(default_factory=set)

    def look(self, artefact: Artefact) -> None:
        """Compare a file's inputs, and theirs, each once."""
        if artefact.path in self.seen:
            return
        self.seen.add(artefact.path)
        for it in artefact.inputs:
            state = it.state
            self.counts[state] = self.counts.get(state, 0) + 1
            if state != UNCHANGED:
                shown = it.name if it.path is None else it.path.name if it.path.is_dir() else str(it.path)
                self.lines.append(
                    f"{state}: {shown} (sha256 {words.short(it.sha256)}), of which {artefact.place} is made"
                )
            for below in _artefact(it.path):
                self.look(below)


def main(arguments: Sequence[str]) -> int:
    """Print what changed and the counts; 1 if anything did.

    Raises:
        UserError: no such file, or none that says what it was made from.
    """
    parser = argparse.ArgumentParser(prog="distalign check", description=__doc__.partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="files or folders below results/{preset}/")
    findings = Findings()
    for file in parser.parse_args(arguments).files:
        artefact = locate(file)
        if "inputs" not in artefact.provenance:
            raise UserError(f"{file}: says nothing of what it was made from; `distalign explain` says what is known.")
        findings.look(artefact)
    counts = ", ".join(f"{count} {state.lower()}" for state, count in sorted(findings.counts.items()))
    words.say([*findings.lines, f"inputs, and theirs: {counts or 'none'}"])
    return int(CHANGED in findings.counts)


def _artefact(path: Path | None) -> Iterator[Artefact]:
    try:
        if path is not None:
            yield locate(path)
    except UserError:
        return
