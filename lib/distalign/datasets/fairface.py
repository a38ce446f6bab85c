"""FairFace (Karkkainen & Joo, 2021): photographs balanced over seven perceived races, with gender and age bin.

The paper joins the seven to four groups. It does not say from which age a face counts as old: that is a setting.
The data set has no test split: of its validation split, which images are for validation and which for testing is
decided by a hash of their names.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distalign.datasets.hub import HubParquet
from distalign.datasets.photographs import DOUBLE, PICTURELESS, UNKNOWN_LABEL, UNLABELLED, Defects, Photograph
from distalign.datasets.pictures import Pictures, locate
from distalign.errors import UserError
from distalign.store.seeds import stable_seed

GENDER = {"Male": "male", "Female": "female"}
RACE = {
    "White": "wmelh",
    "Middle Eastern": "wmelh",
    "Latino_Hispanic": "wmelh",
    "East Asian": "asian",
    "Southeast Asian": "asian",
    "Black": "black",
    "Indian": "indian",
}
BINS = {"0-2": 0, "3-9": 3, "10-19": 10, "20-29": 20, "30-39": 30, "40-49": 40, "50-59": 50, "60-69": 60}
BINS |= {"more than 70": 70}
PARTS = ("train", "val")
FILES = [f"fairface_label_{part}.csv" for part in PARTS]
IMAGES = [f"fairface-img-margin{margin}-trainval{end}" for margin in ("025", "125") for end in ("", ".zip")]
COLUMNS = ("file", "age", "gender", "race")


class FairFace:
    """The official files: two tables of labels, and the images of one margin in folders or in their zip file.

    Raises:
        UserError: a file is missing, cut off, or not of this data set.
    """

    def __init__(self, folder: Path, old_from: int) -> None:
        self.folder, self.old_from = folder, old_from
        if all((folder / part).is_dir() for part in PARTS):
            self.pictures = Pictures(folder, parts=2)
        else:
            self.pictures = Pictures(locate(folder, IMAGES, "images (train/ and val/)"), parts=2)

    def photographs(self, defects: Defects) -> list[Photograph]:
        """All that have labels and an image, in the order of the tables."""
        found: list[Photograph] = []
        known = set()
        for file in FILES:
            for row in self._rows(file):
                name = row["file"] or ""
                if name in known:
                    defects.add(DOUBLE, name)
                    continue
                known.add(name)
                labels = mapped(name, row, self.old_from)
                if labels is None:
                    defects.add(UNKNOWN_LABEL, name)
                elif name not in self.pictures.names:
                    defects.add(PICTURELESS, name)
                else:
                    found.append(Photograph(name=name.rpartition(".")[0], place=name, **labels))
        for name in sorted(self.pictures.names.keys() - known):
            defects.add(UNLABELLED, name)
        for name in self.pictures.repeated:
            defects.add(DOUBLE, name)
        return found

    def images(self, photographs: Sequence[Photograph]) -> Iterator[tuple[Photograph, bytes | None]]:
        """These photographs with the bytes of their images."""
        return ((it, self.pictures.read(it.place)) for it in photographs)

    def _rows(self, file: str) -> Iterator[Mapping[str, Any]]:
        path = locate(self.folder, [file], file)
        try:
            with path.open(encoding="utf-8", newline="") as text:
                table = csv.DictReader(text)
                if lacking := [name for name in COLUMNS if name not in (table.fieldnames or ())]:
                    raise UserError(f"{path}: no column {', '.join(lacking)}; not FairFace's table of labels.")
                yield from table
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path}: not a table of comma-separated values ({error}). Download it again.") from None


class FairFaceParquet(HubParquet):
    """The Parquet files of a hub: columns `image`, `age`, `gender` and `race`, as words or as numbers of words."""

    columns = ("age", "gender", "race")
    words = {  # noqa: RUF012
        "age": tuple(BINS),
        "gender": ("Male", "Female"),
        "race": (
            "East Asian",
            "Indian",
            "Black",
            "White",
            "Middle Eastern",
            "Latino_Hispanic",
            "Southeast Asian",
        ),
    }

    def __init__(self, files: Mapping[Path, str], old_from: int) -> None:
        super().__init__(files)
        self.old_from = old_from

    def labels(self, name: str, split: str, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """Labels of one row, or None if they are not known."""
        part = "train" if split == "train" else "val"
        return mapped(f"{part}/{name.rpartition('/')[2]}.jpg", row, self.old_from)


def open_fairface(folder: Path, old_from: int) -> FairFace | FairFaceParquet:
    """FairFace in a folder, in the form that it has there."""
    parquet = FairFaceParquet.there(folder, old_from)
    return parquet if parquet else FairFace(folder, old_from)


def mapped(file: str, row: Mapping[str, Any], old_from: int) -> dict[str, Any] | None:
    """Split and labels of one image, or None where a word is not known.

    Args:
        file: As the data set names it: `train/1.jpg`, `val/1.jpg`.
        row: The data set's words for `gender`, `race` and `age`.
        old_from: The lower end of the first age bin that is old.
    """
    part = file.partition("/")[0]
    gender, race, lowest = GENDER.get(row["gender"]), RACE.get(row["race"]), BINS.get(row["age"])
    if gender is None or race is None or lowest is None or part not in PARTS:
        return None
    return {
        "split": "train" if part == "train" else ("validation", "test")[stable_seed("fairface", file) % 2],
        "gender": gender,
        "race": race,
        "age": "old" if lowest >= old_from else "young",
        "published_race": row["race"],
        "published_age": row["age"],
    }
