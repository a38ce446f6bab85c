"""`python -m distalign.released DATA.ZIP`: what is in the authors' archive, converted once."""

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from distalign.errors import UserError
from distalign.faces.opensphere import CONFIG, convert_opensphere
from distalign.released import bank, classifiers, prompts
from distalign.released.archive import Archive
from distalign.store.files import atomic_write_json

OPENSPHERE = "20220424_210641"
EMBEDDING = "models/backbone_100000.pth"


def main(arguments: list[str] | None = None) -> int:
    """Convert what there is in an archive; what cannot be is reported, the rest is converted all the same."""
    parser = argparse.ArgumentParser(prog="python -m distalign.released", description=__doc__)
    parser.add_argument("archive", type=Path, help="the authors' data.zip, or the folder it was unpacked to")
    parser.add_argument("--to", type=Path, help="where to write; by default the folder in which the archive lies")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    try:
        archive = Archive(options.archive)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    failed = False
    for place, convert in conversions():
        path = (options.to or options.archive.parent) / place
        try:
            convert(archive, path)
            print(path)
        except UserError as error:
            print(error, file=sys.stderr)
            failed = True
    return int(failed)


def conversions() -> Iterator[tuple[str, Callable[[Archive, Path], None]]]:
    """Where everything goes, and what makes it."""
    for name in prompts.NAMES:
        yield f"prompts/{name}.json", partial(_prompts, name)
    for name in classifiers.SOURCES:
        yield f"classifiers/{name}", partial(classifiers.convert_classifier, name)
    for name in bank.SOURCES:
        yield f"banks/{name}.safetensors", partial(bank.convert_bank, name)
    yield "face_embedding", _face_embedding


def _prompts(name: str, archive: Archive, path: Path) -> None:
    member = archive.find(f"1-prompts/{name}.json")
    atomic_write_json(path, prompts.convert_prompts(archive.read(member), member))


def _face_embedding(archive: Archive, path: Path) -> None:
    """OpenSphere's run folder, of which the size of the network and its tensors are read from files."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (CONFIG, EMBEDDING):
            copy = Path(folder) / name
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(archive.read(archive.find(f"{OPENSPHERE}/{name}")))
        convert_opensphere(Path(folder) / EMBEDDING, path)


if __name__ == "__main__":
    sys.exit(main())
