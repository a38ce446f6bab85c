"""Models that were fetched: the record of their files, checks against it, and strict loading.

`python -m distalign.store.pretrained results/sd15` reads every fetched model below a directory once more and compares
all SHA-256 sums.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from distalign.errors import UserError
from distalign.store.files import atomic_write_json, read_json, sha256_file

RECORD = "fetched.json"
AGAIN = "Delete the directory and run `snakemake fetch` again."


def write_record(directory: Path, facts: Mapping[str, Any], sums: Mapping[str, str]) -> None:
    """Write what a directory of fetched files holds.

    Args:
        directory: With the files in place.
        facts: Where they come from.
        sums: SHA-256 of each file, by its place in the directory.
    """
    files = {file: {"bytes": (directory / file).stat().st_size, "sha256": sums[file]} for file in sorted(sums)}
    atomic_write_json(directory / RECORD, {**facts, "files": files})


def check_record(directory: Path, full: bool = False) -> int:
    """Compare a directory with its record: sizes, and with `full` the SHA-256 of every file.

    Returns:
        How many files were compared; 0 for a directory without a record, as those that were not fetched are.

    Raises:
        UserError: a file is gone (its cache was emptied) or is another.
    """
    directory = Path(directory)
    if not (directory / RECORD).is_file():
        return 0
    files = read_json(directory / RECORD)["files"]
    for name, expected in files.items():
        file = directory / name
        if not file.is_file():
            raise UserError(f"{file}: gone; was the cache of the hub emptied? {AGAIN}")
        if file.stat().st_size != expected["bytes"]:
            raise UserError(f"{file}: {file.stat().st_size} bytes instead of the {expected['bytes']} fetched. {AGAIN}")
        if full and sha256_file(file) != expected["sha256"]:
            raise UserError(f"{file}: its SHA-256 is not the one recorded when it was fetched. {AGAIN}")
    return len(files)


def load_model(kind: Any, directory: Path, **settings: Any) -> Any:
    """A model of a class of diffusers or transformers, from safetensors in a directory, with every tensor it has.

    Args:
        kind: The class, with `from_pretrained`.
        directory: Where `save_pretrained` or a hub put it.
        settings: Passed on, like the type of the weights.

    Raises:
        UserError: files are missing or cut off, or tensors are missing or have another shape: the libraries would
            leave such a tensor at random values.
    """
    with readable(directory, kind.__name__):
        model, report = kind.from_pretrained(
            directory, local_files_only=True, use_safetensors=True, output_loading_info=True, **settings
        )
    wrong = [*report["missing_keys"], *report["mismatched_keys"]]
    if wrong:
        some = ", ".join(sorted(map(str, wrong))[:3])
        raise UserError(f"{directory}: {len(wrong)} tensors of {kind.__name__} are missing or misshapen: {some}, ...")
    return model


@contextmanager
def readable(directory: Path, what: str) -> Iterator[None]:
    """Make `UserError` of what libraries raise for files that are missing, cut off, or of another model."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{directory}: cannot be read as {what} ({reason}).") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Check every fetched model below the directories that are named; 1 if one is not as it was fetched."""
    failed = False
    for root in arguments if arguments is not None else sys.argv[1:]:
        for record in sorted(Path(root).rglob(RECORD)):
            try:
                print(f"{record.parent}: {check_record(record.parent, full=True)} files, as they were fetched")
            except UserError as error:
                print(error, file=sys.stderr)
                failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
