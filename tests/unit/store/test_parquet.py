import contextlib
import json
import os
import subprocess
from itertools import pairwise

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distalign.errors import UserError
from distalign.store import schemas
from distalign.store.files import sha256_file
from distalign.store.parquet import (
    BIAS,
    CLASSIFIED,
    FACES,
    IMAGES,
    ORIGINALS,
    RESULTS,
    TRAIN_LOG,
    ParquetWriter,
    class_columns,
    decode_image,
    encode_png,
    image_cells,
    read_batches,
    read_provenance,
    read_table,
    to_table,
    write_table,
)

LOG = {
    "iteration": [1, 2, 3],
    "phase": ["train", "train", "validation"],
    "classifier": [None, None, "loss"],
    "metric": ["loss/align", "loss/align", "bias/gender"],
    "value": [0.7, None, 0.5],
}


def image(value=0, size=8):
    return np.full((size, size, 3), value, np.uint8)


def images(count=3):
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(count)]
    return pictures, {
        "image_id": [f"chef-{index}" for index in range(count)],
        "prompt_id": ["chef"] * count,
        "prompt": ["a photo of the face of a chef, a person"] * count,
        "index": np.arange(count),
        "noise_seed": np.full(count, 2**63 - 1),
        "image": image_cells(pictures),
    }


ALL = [
    FACES,
    IMAGES,
    BIAS,
    RESULTS,
    TRAIN_LOG,
    ORIGINALS(["gender"]),
    CLASSIFIED({"loss": ["gender", "race"], "reader": ["gender"]}),
]


@pytest.mark.parametrize("schema", ALL)
def test_types_do_not_depend_on_the_data(tmp_path, schema):
    path = tmp_path / "empty.parquet"
    with ParquetWriter(path, schema, {}):
        pass
    table = read_table(path, schema)
    assert table.num_rows == 0
    assert table.schema.types == schema.types
    assert table.column_names == schema.names


def test_class_columns_are_words_in_class_order():
    assert class_columns("gender", "loss") == ["loss/gender=female", "loss/gender=male"]
    assert class_columns("race") == ["race=wmelh", "race=asian", "race=black", "race=indian"]


def test_missing_faces_are_null(tmp_path):
    schema = CLASSIFIED({"loss": ["gender"]})
    found = np.array([True, False])
    hidden = {name: np.ma.masked_array(np.array([1.5, np.nan]), ~found) for name in ("x1", "y1", "x2", "y2", "score")}
    probabilities = {
        name: np.ma.masked_array(np.array([0.5, np.nan]), ~found) for name in class_columns("gender", "loss")
    }
    rows = {
        "prompt_id": ["chef", "chef"],
        "index": np.arange(2),
        "found": found,
        "landmarks": np.ma.masked_array(np.ones((2, 10)), np.repeat(~found[:, None], 10, axis=1)),
        "clip_t": np.ones(2),
        "clip_i": np.ones(2, np.float32),
        "dino": [None, None],
        "concept_readable": [True, None],
        **hidden,
        **probabilities,
    }
    path = tmp_path / "a.parquet"
    write_table(path, rows, schema, {})
    first, second = read_table(path, schema).to_pylist()
    assert first["landmarks"] == [1.0] * 10
    assert first["x1"] == 1.5
    assert all(second[name] is None for name in [*hidden, *probabilities, "landmarks", "dino", "concept_readable"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phase": None}, "missing .'phase'."),
        ({"extra": [1, 2, 3]}, "unknown .'extra'."),
        ({"metric": ["a", None, "b"]}, "column metric has 1 missing"),
        ({"iteration": [1, 2]}, "length"),
    ],
)
def test_wrong_rows_are_refused_and_nothing_is_written(tmp_path, change, message):
    rows = {name: values for name, values in {**LOG, **change}.items() if values is not None}
    with pytest.raises((ValueError, pa.ArrowInvalid), match=message):
        write_table(tmp_path / "a.parquet", rows, TRAIN_LOG, {})
    assert list(tmp_path.iterdir()) == []


def test_streamed_batches_give_the_bytes_of_one_write(tmp_path):
    _, rows = images(10)
    table = to_table(rows, IMAGES)
    for name, cuts in (("a", (0, 10)), ("b", (0, 1, 4, 4, 9, 10))):
        with ParquetWriter(tmp_path / name, IMAGES, {"seed": 1}, rows_per_group=4) as writer:
            for start, stop in pairwise(cuts):
                writer.write(table.slice(start, stop - start))
    assert sha256_file(tmp_path / "a") == sha256_file(tmp_path / "b")
    metadata = pq.read_metadata(tmp_path / "a")
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [4, 4, 2]
    batches = list(read_batches(tmp_path / "a", IMAGES, rows=3, columns=["index"]))
    assert np.concatenate([batch["index"].to_numpy() for batch in batches]).tolist() == list(range(10))


def test_memory_of_reading_in_batches_does_not_grow_with_the_file(tmp_path):
    generator, path = np.random.default_rng(0), tmp_path / "a.parquet"
    with ParquetWriter(path, FACES, {}, rows_per_group=8) as writer:
        for number in range(40):
            cells = [{"bytes": generator.bytes(50_000), "path": None} for _ in range(8)]
            known = {"image_id": [f"{number}-{row}" for row in range(8)], "image": cells}
            empty = {name: [None] * 8 for name in FACES.names}
            writer.write({**empty, **known, "split": ["train"] * 8, "found": [False] * 8})
    before, most = pa.total_allocated_bytes(), 0
    for _ in read_batches(path, FACES, rows=16, columns=["image"]):
        most = max(most, pa.total_allocated_bytes() - before)
    assert 0 < most < path.stat().st_size / 4


def test_failure_while_streaming_leaves_nothing(tmp_path, recwarn):
    path = tmp_path / "a.parquet"
    with pytest.raises(KeyboardInterrupt), ParquetWriter(path, TRAIN_LOG, {}, rows_per_group=1) as writer:
        writer.write(LOG)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    assert not recwarn.list


def test_images_come_back_pixel_by_pixel(tmp_path):
    pictures, rows = images()
    path = tmp_path / "a.parquet"
    write_table(path, rows, IMAGES, {})
    cells = read_table(path, IMAGES, columns=["image"])["image"].to_pylist()
    for picture, cell in zip(pictures, cells, strict=True):
        np.testing.assert_array_equal(decode_image(cell["bytes"]), picture)
    features = json.loads(pq.read_schema(path).metadata[b"huggingface"])["info"]["features"]
    assert features == {"image": {"_type": "Image"}}


def test_image_errors():
    whole = encode_png(image(7))
    for length in (0, 1, 10, len(whole) // 2):
        with pytest.raises(UserError, match="not a complete PNG"):
            decode_image(whole[:length])
    for wrong in (image().astype(np.float32), image()[..., 0], image()[..., :2]):
        with pytest.raises(ValueError, match="uint8"):
            encode_png(wrong)


def test_provenance_travels_in_the_file(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(path, LOG, TRAIN_LOG, {"stage": "finetune", "seeds": {"train": 1}})
    assert read_provenance(path) == {"stage": "finetune", "seeds": {"train": 1}}
    pq.write_table(pa.table({"a": [1]}), path)
    assert read_provenance(path) == {}


@pytest.mark.faults
@pytest.mark.injects("Parquet file cut off")
def test_cut_anywhere_is_refused_clearly(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(path, LOG, TRAIN_LOG, {})
    whole = path.read_bytes()
    for length in {*range(0, len(whole), 7), *range(len(whole) - 100, len(whole))}:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"a\.parquet: not a complete Parquet file \(\d+ bytes.*delete it"):
            read_table(path, TRAIN_LOG)


@pytest.mark.faults
@pytest.mark.injects("bits of a Parquet file flipped")
def test_a_flipped_bit_is_refused_or_harmless(tmp_path):
    """Page checksums: damage is told, or it is in a spot nobody reads; never other numbers."""
    path = tmp_path / "a.parquet"
    write_table(path, LOG, TRAIN_LOG, {})
    whole, expected = path.read_bytes(), read_table(path, TRAIN_LOG)
    refused = 0
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    for place in range(4, len(whole) - footer):
        damaged = bytearray(whole)
        damaged[place] ^= 16
        path.write_bytes(damaged)
        try:
            assert read_table(path, TRAIN_LOG).equals(expected)
        except UserError as error:
            assert "a.parquet" in str(error)
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_foreign_bytes(tmp_path, content):
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a complete Parquet file"):
        read_table(path, TRAIN_LOG)


def test_foreign_columns_and_missing_file(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"iteration": ["1"], "phase": ["train"], "classifier": ["x"], "value": [1.0]}), path)
    with pytest.raises(UserError, match="column") as caught:
        read_table(path, TRAIN_LOG)
    assert "metric is missing" in str(caught.value)
    assert "iteration is string, not int32" in str(caught.value)
    with pytest.raises(UserError, match=r"b\.parquet: no such file"):
        read_table(tmp_path / "b.parquet", TRAIN_LOG)


def test_duckdb_understands_the_files_alone(tmp_path):
    shares = [("female", 0.25), ("male", 0.75)]
    row = {
        "preset": ["mini"], "run": ["original"], "seed": [0], "evaluation": ["occupations"], "prompt_id": ["chef"],
        "classifier": ["evaluation"], "attribute": ["gender"], "frequencies": [shares], "bias": [0.5], "n_images": [60],
        "n_faces": [60], "floor": [0.1], "target": [[("female", 0.5), ("male", 0.5)]], "target_distance": [0.25],
        "target_floor": [0.05],
    }  # fmt: skip
    write_table(tmp_path / "bias.parquet", row, BIAS, {})
    place = tmp_path / "bias.parquet"
    found = duckdb.sql(f"select frequencies['female'], target['male'], bias from '{place}'").fetchall()
    assert found == [(0.25, 0.5, 0.5)]
    long = duckdb.sql(
        f"select e.key, e.value from (select unnest(map_entries(frequencies)) e from '{place}')"
    ).fetchall()
    assert long == shares
    _, rows = images()
    write_table(tmp_path / "images.parquet", rows, IMAGES, {})
    query = f"select count(*), min(octet_length(image.bytes)) from '{tmp_path / 'images.parquet'}'"
    count, size = duckdb.sql(query).fetchall()[0]
    assert count == 3
    assert size > 0


@contextlib.contextmanager
def tiny_disk(place, size="64k"):
    place.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a tiny disk needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.faults
@pytest.mark.injects("disk full")
def test_disk_really_full(tmp_path, recwarn):
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    _, rows = images(1)
    with tiny_disk(tmp_path / "disk") as disk:
        with (
            pytest.raises(UserError, match=r"images\.parquet: the disk is full \(0\.\d MB free\)"),
            ParquetWriter(disk / "images.parquet", IMAGES, {}, rows_per_group=1) as writer,
        ):
            for _ in range(10):
                writer.write({**rows, "image": image_cells([noise])})
        assert list(disk.iterdir()) == []
        write_table(disk / "log.parquet", LOG, TRAIN_LOG, {})
        assert read_table(disk / "log.parquet", TRAIN_LOG).num_rows == 3
    assert not recwarn.list


@pytest.mark.faults
@pytest.mark.injects("disk full")
def test_disk_full_at_any_write(tmp_path, monkeypatch):
    """The same without a mount: the n-th write to the file fails, for every n."""
    from distalign.store import files

    real_open, failures = files.Path.open, 0
    for fail_at in range(200):
        writes = iter(range(10**6))

        class Full:
            def __init__(self, handle):
                self.handle = handle

            def __enter__(self):
                return self

            def __exit__(self, *arguments):
                self.handle.close()

            def __getattr__(self, name):
                return getattr(self.handle, name)

            def write(self, data, writes=writes, fail_at=fail_at):
                if next(writes) >= fail_at:
                    raise OSError(28, "No space left on device")
                return self.handle.write(data)

        monkeypatch.setattr(files.Path, "open", lambda path, mode="r", **more: Full(real_open(path, mode, **more)))
        try:
            write_table(tmp_path / "a.parquet", LOG, TRAIN_LOG, {})
            break
        except UserError as error:
            assert "the disk is full" in str(error)
            failures += 1
            assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert failures > 3
    assert read_table(tmp_path / "a.parquet", TRAIN_LOG).num_rows == 3


def test_schemas_say_which_columns_may_be_null():
    assert [field.name for field in schemas.RESULTS if not field.nullable] == [
        "preset", "run", "seed", "evaluation", "metric", "n",
    ]  # fmt: skip
