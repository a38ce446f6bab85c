"""Data sets as Parquet files of a hub: an `image` column of bytes and paths, and file names that say the split."""

import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.parquet as pq

from distalign.datasets.photographs import UNKNOWN_LABEL, Defects, Photograph
from distalign.errors import UserError

# train-00000-of-00019.parquet, or 0000.parquet in a folder of the split's name. An older library of the hub put a
# fingerprint behind: train-00000-of-00002-d405faba4f4b9b85.parquet of FairFace.
SPLIT = re.compile(r"(train|valid|validation|val|test)(-\d+-of-\d+(-[0-9a-f]+)?)?")
SPLITS = {"train": "train", "valid": "validation", "validation": "validation", "val": "validation", "test": "test"}
ROWS_AT_ONCE = 64
READ_AHEAD = 1 << 20  # bytes; without it a whole row group is in memory


class HubParquet:
    """Rows of Parquet files; a photograph is named by its split and its number in it, from 1.

    Args:
        files: The files with their splits, in order.

    Attributes:
        columns: Columns of labels that have to be there.
        optional: Columns that are read if they are.
        words: Words behind the numbers of a column whose file does not name them itself.
    """

    columns: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]] = ()
    words: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __init__(self, files: Mapping[Path, str]) -> None:
        self.files = dict(files)

    @classmethod
    def there(cls, folder: Path, *settings: Any) -> Self | None:
        """The Parquet files at most two folders below one; None without any.

        Raises:
            UserError: files of unknown splits, or in more than one folder: several forms of the same images.
        """
        paths = sorted(path for depth in ("", "*/", "*/*/") for path in folder.glob(f"{depth}*.parquet"))
        if not paths:
            return None
        files, homes = {}, set()
        for path in paths:
            by_name = SPLIT.fullmatch(path.stem)
            match = by_name or SPLIT.fullmatch(path.parent.name)
            if match is None:
                raise UserError(f"{path}: says no split; expected train-*.parquet, validation-*.parquet and so on.")
            files[path] = SPLITS[match[1]]
            homes.add(path.parent if by_name else path.parent.parent)
        if len(homes) > 1:
            listed = ", ".join(sorted(str(home) for home in homes))
            raise UserError(f"{folder}: Parquet files in several folders: {listed}. Name one of them in the preset.")
        order = list(SPLITS.values())
        return cls(dict(sorted(files.items(), key=lambda it: (order.index(it[1]), it[0]))), *settings)

    @abstractmethod
    def labels(self, name: str, split: str, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """Split and labels of one row, as `Photograph` names them; None if they are not known."""

    def photographs(self, defects: Defects) -> list[Photograph]:
        """All that have labels, in the order of the files."""
        found = []
        numbers = dict.fromkeys(SPLITS.values(), 0)
        for file, (path, split) in enumerate(self.files.items()):
            for place, row in enumerate(self._rows(path)):
                numbers[split] += 1
                name = f"{split}/{numbers[split]}"
                labels = self.labels(name, split, row)
                if labels is None:
                    defects.add(UNKNOWN_LABEL, name)
                else:
                    found.append(Photograph(name=name, place=(file, place), **labels))
        return found

    def images(self, photographs: Sequence[Photograph]) -> Iterator[tuple[Photograph, bytes | None]]:
        """These photographs, in the order of the files, with the bytes of their images."""
        wanted = {it.place: it for it in photographs}
        for file, path in enumerate(self.files):
            place = 0
            for batch in self._batches(path, ["image"]):
                for cell in batch["image"].to_pylist():
                    if photograph := wanted.get((file, place)):
                        yield photograph, cell and cell["bytes"]
                    place += 1

    def _rows(self, path: Path) -> Iterator[dict[str, Any]]:
        """Labels of a file's rows, in words."""
        with _opened(path) as opened:
            present = opened.schema_arrow
        if lacking := [name for name in ("image", *self.columns) if name not in present.names]:
            raise UserError(f"{path}: no column {', '.join(lacking)}; another data set?")
        kind = present.field("image").type
        if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
            raise UserError(f"{path}: column image holds {kind}, not images as the hub stores them (bytes, path).")
        chosen = [*self.columns, *(name for name in self.optional if name in present.names)]
        words = {name: self._words(name, present) for name in chosen}
        for batch in self._batches(path, chosen):
            for row in batch.to_pylist():
                yield {name: _word(value, words[name]) for name, value in row.items()}

    def _words(self, column: str, schema: pa.Schema) -> tuple[str, ...] | None:
        """Words of a column's numbers, as the file names them or as the data set is known to."""
        if not pa.types.is_integer(schema.field(column).type) or column not in self.words:
            return None
        try:
            features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
            return tuple(features[column]["names"])
        except (KeyError, TypeError, ValueError):
            return self.words[column]

    def _batches(self, path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
        with _opened(path) as opened:
            try:
                yield from opened.iter_batches(ROWS_AT_ONCE, columns=columns, use_threads=False)
            except (pa.ArrowInvalid, OSError) as error:
                raise _damaged(path, error) from None


def _word(value: Any, words: tuple[str, ...] | None) -> Any:
    """A value as it is, or the word of a number; None for a number that has none."""
    if words is None:
        return value
    return words[value] if value is not None and 0 <= value < len(words) else None


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_AHEAD)
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0]
    return UserError(f"{path}: not a complete Parquet file ({path.stat().st_size} bytes; {reason}). Download it again.")
