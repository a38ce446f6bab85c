"""Check every file of a bundle that `distalign archive` made: `distalign verify BUNDLE`.

Nothing is unpacked. Exit status 0: complete, and every byte as its manifest says; 1: not so.
"""

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from distalign.errors import UserError
from distalign.store.archives import Member, read_first, read_members
from distalign.store.files import sha256_file
from distalign.trace import words
from distalign.trace.bundle import LARGEST_MANIFEST, MANIFEST, Entry, read_manifest

BLOCK = 1 << 20
MOST_GB = 200.0


def main(arguments: Sequence[str]) -> int:
    """Print what is wrong, or that nothing is; 1 if anything is."""
    parser = argparse.ArgumentParser(prog="distalign verify", description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a file of `distalign archive`")
    parser.add_argument(
        "--most", type=float, default=MOST_GB, metavar="GB", help="read no more than so much (%(default)g)"
    )
    options = parser.parse_args(arguments)
    bundle: Path = options.bundle
    if not bundle.is_file():
        raise UserError(f"{bundle}: no such file.")
    try:
        manifest = _manifest(bundle, options.most)
        problems = list(_problems(bundle, manifest))
    except UserError as error:
        words.say(str(error).splitlines())
        return 1
    if problems:
        words.say(
            [*problems, f"{bundle}: not as its manifest says, {len(problems)} of {len(manifest)} files. Get it anew."]
        )
        return 1
    total = words.size(sum(entry.size for entry in manifest.values()))
    words.say([f"{bundle}: {len(manifest)} files, {total}, all as the manifest says (sha256 {sha256_file(bundle)})"])
    return 0


def _manifest(bundle: Path, most: float) -> dict[str, Entry]:
    first, data = read_first(bundle, LARGEST_MANIFEST)
    if _place(first) != MANIFEST:
        raise UserError(
            f"{bundle}: no bundle of distalign: it begins with {first.name!r} and not with {MANIFEST}. Make one with "
            "`distalign archive`."
        )
    manifest = read_manifest(data, bundle)
    total = sum(entry.size for entry in manifest.values())
    if total > most * 1e9:
        raise UserError(f"{bundle}: its files have {words.size(total)}, more than {most:g} GB. Allow more with --most.")
    return {**manifest, MANIFEST: Entry(len(data), hashlib.sha256(data).hexdigest())}


def _problems(bundle: Path, manifest: dict[str, Entry]) -> Iterator[str]:
    """What is wrong, a line per file. No more bytes are read than the manifest has."""
    left = dict(manifest)
    for member, source in read_members(bundle, sum(entry.size for entry in manifest.values())):
        entry = left.pop(_place(member), None)
        if entry is None:
            yield f"{member.name}: not in the manifest"
        elif member.size != entry.size:
            yield f"{member.name}: {member.size} bytes instead of {entry.size}"
        elif _sha256(source) != entry.sha256:
            yield f"{member.name}: its SHA-256 is not the manifest's"
    yield from (f"{name}: missing" for name in left)


def _place(member: Member) -> str:
    """A member's place below the one folder that a bundle unpacks to."""
    return member.name.partition("/")[2]


def _sha256(source: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := source.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()
