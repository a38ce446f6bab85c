"""CelebA (Liu et al., 2015): photographs of celebrities with 40 binary attributes, identities and a partition."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from distalign.datasets.hub import HubParquet
from distalign.datasets.photographs import DOUBLE, PICTURELESS, UNKNOWN_LABEL, UNLABELLED, Defects, Photograph
from distalign.datasets.pictures import Pictures, locate
from distalign.errors import UserError

FOLDERS = ("", "Anno/", "Eval/", "Img/")  # of the download, or all in one
ATTRIBUTES_FILE = "list_attr_celeba.txt"
PARTITION_FILE = "list_eval_partition.txt"
IDENTITY_FILE = "identity_CelebA.txt"
SPLITS = {"0": "train", "1": "validation", "2": "test"}
MALE, YOUNG = "Male", "Young"
GENDER: dict[bool | None, str] = {True: "male", False: "female"}
AGE: dict[bool | None, str] = {True: "young", False: "old"}
SIGNS = {"1": True, "-1": False}


class CelebA:
    """The official files: three lists, and the aligned images in a folder or in their zip file.

    Raises:
        UserError: a file is missing, cut off, or not of this data set.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        places = [place + name for name in ("img_align_celeba", "img_align_celeba.zip") for place in FOLDERS]
        images = locate(folder, places, "aligned images")
        self.pictures = Pictures(images, parts=1)

    def photographs(self, defects: Defects) -> list[Photograph]:
        """All that have labels and an image, in the order of the list of attributes."""
        splits = self._columns(PARTITION_FILE, defects)
        identities = self._columns(IDENTITY_FILE, defects) if self._has(IDENTITY_FILE) else {}
        found: dict[str, Photograph] = {}
        known = set()
        for name, values in self._attributes(defects):
            if name in known:
                defects.add(DOUBLE, name)
                continue
            known.add(name)
            split, identity = SPLITS.get(splits.get(name, "")), identities.get(name)
            gender, age = GENDER.get(values.get(MALE)), AGE.get(values.get(YOUNG))
            if None in (split, gender, age) or (identities and not (identity or "").isdigit()):
                defects.add(UNKNOWN_LABEL, name)
            elif name not in self.pictures.names:
                defects.add(PICTURELESS, name)
            else:
                person = int(identity) if identity else None
                found[name] = Photograph(_stem(name), name, str(split), gender, None, age, person)
        for name in self.pictures.names.keys() - known:
            defects.add(UNLABELLED, name)
        for name in self.pictures.repeated:
            defects.add(DOUBLE, name)
        return list(found.values())

    def images(self, photographs: Sequence[Photograph]) -> Iterator[tuple[Photograph, bytes | None]]:
        """These photographs with the bytes of their images."""
        return ((it, self.pictures.read(it.place)) for it in photographs)

    def _attributes(self, defects: Defects) -> Iterator[tuple[str, Mapping[str, bool | None]]]:
        """Name of each image with what of Male and Young is known; checks the count the list begins with."""
        path, lines = self._lines(ATTRIBUTES_FILE)
        names = lines[1].split() if len(lines) > 1 else []
        if not lines or not lines[0].strip().isdigit() or not {MALE, YOUNG} <= {*names}:
            raise UserError(f"{path}: does not begin as CelebA's list of attributes does: a count, then their names.")
        if len(lines) - 2 != int(lines[0]):
            raise UserError(f"{path}: {len(lines) - 2} images instead of the {int(lines[0])} it says; cut off?")
        wanted = {name: names.index(name) for name in (MALE, YOUNG)}
        for line in lines[2:]:
            name, *values = line.split()
            complete = len(values) == len(names)
            yield name, {it: SIGNS.get(values[place]) for it, place in wanted.items()} if complete else {}

    def _columns(self, file: str, defects: Defects) -> dict[str, str]:
        """The second column of a list by its first."""
        columns: dict[str, str] = {}
        for line in self._lines(file)[1]:
            name, _, value = line.partition(" ")
            if name in columns:
                defects.add(DOUBLE, f"{name} in {file}")
            columns.setdefault(name, value.strip())
        return columns

    def _has(self, file: str) -> bool:
        return any((self.folder / place / file).is_file() for place in FOLDERS)

    def _lines(self, file: str) -> tuple[Path, list[str]]:
        path = locate(self.folder, [place + file for place in FOLDERS], file)
        try:
            return path, [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError:
            raise UserError(f"{path}: not a text file. Download it again.") from None


class CelebAParquet(HubParquet):
    """The Parquet files of a hub: columns `image`, `celeb_id` and the attributes."""

    columns = (MALE, YOUNG)  # booleans, or 1 and -1
    optional = ("celeb_id",)

    def labels(self, name: str, split: str, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """Labels of one row, or None if they are not known."""
        gender, age = (
            meaning.get({1: True, -1: False}.get(row[key], row[key])) for meaning, key in ((GENDER, MALE), (AGE, YOUNG))
        )
        if gender is None or age is None:
            return None
        return {"split": split, "gender": gender, "race": None, "age": age, "identity": row.get("celeb_id")}


def open_celeba(folder: Path) -> CelebA | CelebAParquet:
    """CelebA in a folder, in the form that it has there."""
    parquet = CelebAParquet.there(folder)
    return parquet if parquet else CelebA(folder)


def _stem(name: str) -> str:
    return PurePosixPath(name).stem
