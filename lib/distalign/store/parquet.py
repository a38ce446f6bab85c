"""Parquet files: written completely or not at all, read with a clear message when something is wrong with them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distalign.errors import UserError
from distalign.store.files import atomic_file
from distalign.store.images import decode_image, encode_png
from distalign.store.schemas import (
    BIAS,
    CLASSIFIED,
    FACES,
    FEATURES,
    GRADIENT_STUDY,
    IMAGE,
    IMAGES,
    ORIGINALS,
    PUBLISHED_FACES,
    REFERENCE,
    RESULTS,
    TRAIN_LOG,
    class_columns,
)

__all__ = [
    "BIAS", "CLASSIFIED", "FACES", "FEATURES", "GRADIENT_STUDY", "IMAGES", "ORIGINALS", "PUBLISHED_FACES",
    "REFERENCE", "RESULTS", "TRAIN_LOG",
    "ParquetWriter", "class_columns", "decode_image", "encode_png", "image_cells", "png_cells", "read_batches",
    "read_note", "read_provenance", "read_schema", "read_table", "to_table", "write_table",
]  # fmt: skip

PROVENANCE_KEY = b"distalign"
ROWS_PER_GROUP = 512


class ParquetWriter:
    """Write a Parquet file batch by batch; it appears under its name when the `with` block ends without an error.

    Batches are gathered into row groups of `rows_per_group`, so that what is read later does not depend on how the
    rows were computed.
    """

    def __init__(
        self, path: Path, schema: pa.Schema, provenance: Mapping[str, Any], rows_per_group: int = ROWS_PER_GROUP
    ) -> None:
        self.path = Path(path)
        self.schema = schema.with_metadata(_metadata(schema, provenance))
        self.rows_per_group = rows_per_group
        self._pending: list[pa.Table] = []
        self._stack = ExitStack()

    def __enter__(self) -> "ParquetWriter":
        with ExitStack() as stack:
            handle = stack.enter_context(atomic_file(self.path))
            self._writer = pq.ParquetWriter(handle, self.schema, compression="zstd", write_page_checksum=True)
            self._stack = stack.pop_all()
        return self

    def write(self, rows: pa.Table | Mapping[str, Any]) -> None:
        """Append rows: a table, or columns as `to_table` takes them."""
        self._pending.append(to_table(rows, self.schema))
        while sum(table.num_rows for table in self._pending) >= self.rows_per_group:
            self._flush(self.rows_per_group)

    def note(self, key: str, value: Any) -> None:
        """Keep a JSON-able value, which is known only after the rows are, for `read_note` in the file's metadata."""
        self._writer.add_key_value_metadata({_note_key(key): json.dumps(value, ensure_ascii=False, allow_nan=False)})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finish the file, or leave nothing when the block failed."""
        with self._stack:
            try:
                if error is not None:
                    raise error
                self._flush(None)
                self._writer.close()
            except BaseException:
                self._writer.is_open = False  # or its finaliser would write a footer into the closed file
                raise

    def _flush(self, rows: int | None) -> None:
        table = pa.concat_tables(self._pending) if self._pending else self.schema.empty_table()
        count = table.num_rows if rows is None else rows
        if count:
            self._writer.write_table(table.slice(0, count), row_group_size=self.rows_per_group)
        rest = table.slice(count)
        self._pending = [rest] if rest.num_rows else []


def write_table(
    path: Path, rows: pa.Table | Mapping[str, Any], schema: pa.Schema, provenance: Mapping[str, Any]
) -> None:
    """Write one Parquet file, completely or not at all, with `provenance` (JSON) in its metadata."""
    with ParquetWriter(path, schema, provenance) as writer:
        writer.write(rows)


def to_table(rows: pa.Table | Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """Bring rows to a schema's columns and types.

    Columns may be lists, NumPy arrays (masked values become nulls; a 2-D array becomes a list column), or Arrow arrays.

    Raises:
        ValueError: columns missing or unknown, of unequal lengths, or a null where none may be.
    """
    names = rows.column_names if isinstance(rows, pa.Table) else list(rows)
    missing, unknown = sorted(set(schema.names) - set(names)), sorted(set(names) - set(schema.names))
    if missing or unknown:
        raise ValueError(f"columns do not fit the schema: missing {missing}, unknown {unknown}")
    arrays = [_column(rows[field.name], field) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def read_table(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file that must have a schema's columns; others it may have are left out.

    Args:
        path: the file.
        schema: what it must hold.
        columns: read only these of the schema's columns.

    Raises:
        UserError: missing, cut off, damaged, not Parquet, or without the columns; names the file.
    """
    with _open(path, schema, columns) as file:
        try:
            return file.read(columns=list(columns or schema.names)).select(list(columns or schema.names))
        except (pa.ArrowInvalid, OSError) as error:
            raise _damaged(path, error) from None


def read_batches(
    path: Path, schema: pa.Schema, rows: int, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Read as `read_table` does, `rows` at a time, for files larger than memory; checks the columns at the first."""
    with _open(path, schema, columns) as file:
        try:
            yield from file.iter_batches(batch_size=rows, columns=list(columns or schema.names))
        except (pa.ArrowInvalid, OSError) as error:
            raise _damaged(path, error) from None


def read_schema(path: Path) -> pa.Schema:
    """The columns of a Parquet file, whatever they are; raises as `read_table`."""
    with _open(path, pa.schema([])) as file:
        return file.schema_arrow


def read_provenance(path: Path) -> dict[str, Any]:
    """Read the provenance in a file's metadata; empty for a file of another program."""
    with _open(path, pa.schema([])) as file:
        text = (file.schema_arrow.metadata or {}).get(PROVENANCE_KEY, b"{}")
    provenance: dict[str, Any] = json.loads(text)
    return provenance


def read_note(path: Path, key: str) -> Any:
    """Read a value kept by `ParquetWriter.note`; None in a file without it."""
    with _open(path, pa.schema([])) as file:
        text = (file.metadata.metadata or {}).get(_note_key(key).encode())
    return None if text is None else json.loads(text)


def image_cells(images: Sequence[np.ndarray], paths: Sequence[str | None] | None = None) -> pa.Array:
    """Make an image column of uint8 (H, W, 3) RGB images, each stored as PNG bytes."""
    return png_cells([encode_png(image) for image in images], [None] * len(images) if paths is None else paths)


def png_cells(encoded: Sequence[bytes], paths: Sequence[str | None]) -> pa.Array:
    """Make an image column of PNG bytes."""
    cells = [{"bytes": data, "path": name} for data, name in zip(encoded, paths, strict=True)]
    return pa.array(cells, type=IMAGE)


def _note_key(key: str) -> str:
    return f"{PROVENANCE_KEY.decode()}.{key}"


def _column(values: Any, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        column = values.cast(field.type)
    elif isinstance(values, np.ndarray) and values.ndim == 2:
        # a masked row is a null list
        masked = np.atleast_1d(np.ma.getmaskarray(values).all(axis=1))
        rows = [None if hidden else row for hidden, row in zip(masked, np.ma.getdata(values), strict=True)]
        column = pa.array(rows, type=field.type)
    else:
        column = pa.array(values, type=field.type)
    if column.null_count and not field.nullable:
        raise ValueError(f"column {field.name} has {column.null_count} missing values; it may have none")
    return column


def _metadata(schema: pa.Schema, provenance: Mapping[str, Any]) -> dict[bytes, bytes]:
    metadata = {PROVENANCE_KEY: json.dumps(provenance, sort_keys=True, allow_nan=False).encode()}
    images = {field.name: {"_type": "Image"} for field in schema if field.type == IMAGE}
    if images:
        metadata[b"huggingface"] = json.dumps({"info": {"features": images}}).encode()
    return metadata


def _open(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pq.ParquetFile:
    """Open a file that must hold a schema's columns (or those of them that are named)."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file. Run the step that makes it.")
    try:
        # Without pre_buffer, which keeps in memory all that was read of a file until the last of it is.
        file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, error) from None
    present = {field.name: field.type for field in file.schema_arrow}
    wanted = {name: schema.field(name).type for name in (columns or schema.names)}
    problems = [f"{name} is missing" for name in wanted if name not in present]
    problems += [
        f"{name} is {present[name]}, not {kind}"
        for name, kind in wanted.items()
        if name in present and present[name] != kind
    ]
    if problems:
        file.close()
        raise UserError(
            f"{path}: not the kind of file expected here: column {', column '.join(problems)}. "
            "It comes from another program or version; delete it and run again to make it anew."
        )
    return file


def _damaged(path: Path, error: Exception) -> UserError:
    size = Path(path).stat().st_size
    reason = str(error).splitlines()[0]
    return UserError(
        f"{path}: not a complete Parquet file ({size} bytes; {reason}). "
        "It was cut off, damaged, or is something else; delete it and run again to make it anew."
    )
