"""CelebA and FairFace in the forms they are published in, whole and broken, become one Parquet file of faces."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from distalign.config.attributes import ATTRIBUTES
from distalign.config.models.faces import Faces
from distalign.datasets.celeba import open_celeba
from distalign.datasets.fairface import mapped, open_fairface
from distalign.datasets.photographs import (
    DOUBLE,
    NO_FACE,
    OTHER_SIZE,
    PICTURELESS,
    UNKNOWN_LABEL,
    UNLABELLED,
    UNREADABLE,
    Defects,
    Photograph,
)
from distalign.datasets.writing import central, drawn, fitted, write_published
from distalign.errors import UserError
from distalign.faces.dataset import load_faces
from distalign.faces.detector import Faces as Found
from distalign.store.images import decode_image
from distalign.store.parquet import read_note, read_provenance
from helpers.face_archives import (
    AGES,
    FAIRFACE_SIZE,
    RACES,
    celeba,
    celeba_parquet,
    fairface,
    fairface_parquet,
    jpeg,
    portraits,
)


class Middle:
    """A detector that finds a face in the middle of every image that is not black there."""

    def detect(self, images: torch.Tensor) -> list[Found]:
        height, width = images.shape[-2:]
        box = torch.tensor([[width * 0.3, height * 0.3, width * 0.7, height * 0.7]])
        marks, score = box[:, :2].repeat(5, 1)[None], torch.ones(1)
        seen = images[:, :, height // 2, width // 2].amax(1) > -0.9
        return [Found(box, marks, score) if it else Found(box[:0], marks[:0], score[:0]) for it in seen]


def write(folder: Path, source: str, **settings: Any) -> tuple[Path, list[dict[str, Any]], dict[str, int]]:
    """Write a data set: the file, its rows, and what was left out."""
    spec = Faces(source=source, path=folder.name, **settings).meaning()
    path = folder.parent / "faces.parquet"
    defects = write_published(path, spec, folder.parent, Middle(), {"stage": "faces"})  # type: ignore[arg-type]
    return path, pq.read_table(path).to_pylist(), {k: n for k, n in defects.counts().items() if n}


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "folder": celeba,
    "zip": lambda folder: celeba(folder, packed=True),
    "download": lambda folder: celeba(folder, packed=True, divided=True),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_celeba(tmp_path: Path, layout: str) -> None:
    path, rows, left_out = write(LAYOUTS[layout](tmp_path / "celeba"), "celeba")
    images, people = portraits(12, 178, 218)
    assert not left_out
    assert [row["image_id"] for row in rows] == [f"{i:06d}" for i in range(1, 13)]
    assert [row["image"]["bytes"] for row in rows] == images  # byte for byte
    assert [row["gender"] for row in rows] == list(people.labels("gender"))
    assert [row["age"] for row in rows] == list(people.labels("age"))
    assert {row["race"] for row in rows} == {None}
    assert [row["identity"] for row in rows] == [100 + i // 2 for i in range(12)]
    assert [row["split"] for row in rows] == ["train"] * 4 + ["validation", "test"] + ["train"] * 4 + [
        "validation",
        "test",
    ]
    assert rows[0]["x1"] == pytest.approx(178 * 0.3)
    assert read_provenance(path) == {"stage": "faces"}
    assert len(load_faces(path, "train")) == 8


def test_celeba_of_a_hub_is_the_same(tmp_path: Path) -> None:
    _, rows, left_out = write(celeba_parquet(tmp_path / "celeba"), "celeba")
    images, people = portraits(12, 178, 218)
    assert not left_out
    assert [row["image"]["bytes"] for row in rows] == images
    assert [row["gender"] for row in rows] == list(people.labels("gender"))
    assert [row["age"] for row in rows] == list(people.labels("age"))
    assert [row["split"] for row in rows] == ["train"] * 8 + ["validation"] * 2 + ["test"] * 2
    assert [row["identity"] for row in rows] == [100 + i // 2 for i in range(12)]


FORMS: dict[str, Callable[[Path], Path]] = {
    "folders": fairface,
    "folder of a margin": lambda folder: fairface(folder, margin="025"),
    "zip of a margin": lambda folder: fairface(folder, margin="125", packed=True),
    "hub": fairface_parquet,
    "hub without words": lambda folder: fairface_parquet(folder, named=False),
}


@pytest.mark.parametrize("form", FORMS)
def test_fairface(tmp_path: Path, form: str) -> None:
    path, rows, left_out = write(FORMS[form](tmp_path / "fairface"), "fairface")
    images, people = portraits(12, *FAIRFACE_SIZE)
    assert not left_out
    assert [row["image"]["bytes"] for row in rows] == images
    assert [row["gender"] for row in rows] == list(people.labels("gender"))
    assert [row["published_race"] for row in rows] == [RACES[i % 7] for i in range(12)]
    assert [row["published_age"] for row in rows] == [AGES[i % 9] for i in range(12)]
    groups = dict(zip(RACES, ["asian", "indian", "black", "wmelh", "wmelh", "wmelh", "asian"], strict=True))
    assert [row["race"] for row in rows] == [groups[RACES[i % 7]] for i in range(12)]
    assert [row["age"] for row in rows] == ["old" if i % 9 >= 5 else "young" for i in range(12)]
    assert [row["split"] for row in rows[:8]] == ["train"] * 8
    faces = load_faces(path, "train", ["race", "race7"])
    seven = [ATTRIBUTES["race7"][index].replace("_", " ") for index in faces.labels["race7"].tolist()]
    assert seven == [RACES[i % 7].lower().replace("_", " ") for i in range(8)]
    # the same halves in every form
    expected = [mapped(f"val/{i}.jpg", {"gender": "Male", "race": "White", "age": "3-9"}, 40) for i in range(1, 5)]
    assert [row["split"] for row in rows[8:]] == [it["split"] for it in expected if it]


def test_fairfaces_validation_is_halved_by_name() -> None:
    labels = {"gender": "Male", "race": "White", "age": "3-9"}
    splits = [(mapped(f"val/{i}.jpg", labels, 40) or {})["split"] for i in range(1, 2001)]
    assert set(splits) == {"validation", "test"}
    assert 0.45 < splits.count("test") / len(splits) < 0.55
    assert (mapped("train/1.jpg", labels, 40) or {})["split"] == "train"


@pytest.mark.parametrize(("old_from", "old"), [(20, 6), (40, 4), (70, 1)])
def test_where_old_begins_is_a_setting(old_from: int, old: int) -> None:
    rows = [mapped("train/1.jpg", {"gender": "Female", "race": "Black", "age": age}, old_from) for age in AGES]
    assert [(it or {})["age"] for it in rows] == ["young"] * (9 - old) + ["old"] * old


def test_defects_are_left_out_counted_and_listed(tmp_path: Path) -> None:
    folder = celeba(tmp_path / "celeba", 24)
    images = folder / "img_align_celeba"
    (images / "000001.jpg").write_bytes((images / "000001.jpg").read_bytes()[:900])
    (images / "000002.jpg").unlink()
    shutil.copy(images / "000003.jpg", images / "000004.jpg")
    (images / "999999.jpg").write_bytes((images / "000003.jpg").read_bytes())
    (images / "000005.jpg").write_bytes(jpeg(np.full((64, 64, 3), 120, np.uint8), 100, 100))
    (images / "000006.jpg").write_bytes(jpeg(np.zeros((64, 64, 3), np.uint8), 178, 218))
    attributes = folder / "list_attr_celeba.txt"
    lines = attributes.read_text().splitlines()
    lines[2 + 6] = lines[2 + 6].rpartition(" ")[0]
    lines[2 + 7] = lines[2 + 8]
    attributes.write_text("\n".join(lines))
    path, rows, left_out = write(folder, "celeba", allowed_defects=0.5)
    wanted = {
        UNREADABLE: ["000001"],
        PICTURELESS: ["000002.jpg"],
        DOUBLE: ["000009.jpg", "000004"],
        UNLABELLED: ["000008.jpg", "999999.jpg"],
        OTHER_SIZE: ["000005"],
        NO_FACE: ["000006"],
        UNKNOWN_LABEL: ["000007.jpg"],
    }
    assert left_out == {kind: len(names) for kind, names in wanted.items()}
    listed = {kind: sorted(it["names"]) for kind, it in read_note(path, "defects").items()}
    assert listed == {kind: sorted(names) for kind, names in wanted.items()}
    gone = [1, 2, 4, 5, 6, 7, 8]
    assert [row["image_id"] for row in rows] == [f"{i:06d}" for i in range(1, 25) if i not in gone]


def test_too_many_defects_are_an_error_and_leave_nothing(tmp_path: Path) -> None:
    folder = fairface(tmp_path / "fairface")
    for i in (1, 2):
        (folder / "train" / f"{i}.jpg").write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"2 of 12 have defects, more than allowed_defects \(0.01\): 2 image that"):
        write(folder, "fairface")
    assert not (tmp_path / "faces.parquet").exists()
    assert write(folder, "fairface", allowed_defects=0.2)[2] == {UNREADABLE: 2}


def test_too_few_faces_are_an_error(tmp_path: Path) -> None:
    folder = fairface(tmp_path / "fairface")
    for i in range(1, 4):  # black, and not the same
        (folder / "train" / f"{i}.jpg").write_bytes(jpeg(np.full((64, 64, 3), i, np.uint8), *FAIRFACE_SIZE))
    with pytest.raises(UserError, match=r"no face found in 3 of 12, more than allowed_missed \(0.1\)"):
        write(folder, "fairface")
    assert write(folder, "fairface", allowed_missed=0.25)[2] == {NO_FACE: 3}


def test_labels_of_unknown_words_and_labels_without_images(tmp_path: Path) -> None:
    folder = fairface(tmp_path / "fairface")
    table = folder / "fairface_label_train.csv"
    table.write_text(table.read_text().replace("Southeast Asian", "Martian") + "train/99.jpg,3-9,Male,White,True\n")
    assert write(folder, "fairface", allowed_defects=0.5)[2] == {UNKNOWN_LABEL: 1, PICTURELESS: 1}


def test_damaged_members_of_a_zip_file(tmp_path: Path) -> None:
    folder = celeba(tmp_path / "celeba", packed=True)
    archive = folder / "img_align_celeba.zip"
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 0xFF
    archive.write_bytes(data)
    assert write(folder, "celeba", allowed_defects=0.1)[2] == {UNREADABLE: 1}
    archive.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"img_align_celeba\.zip: not a complete zip file"):
        write(folder, "celeba")


def test_images_of_several_sizes_are_brought_to_one(tmp_path: Path) -> None:
    folder = fairface(tmp_path / "fairface")
    rng = np.random.default_rng(0)
    (folder / "train/1.jpg").write_bytes(jpeg(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), 400, 200))
    path, rows, left_out = write(folder, "fairface", size=96)
    assert not left_out
    assert {decode_image(row["image"]["bytes"]).shape for row in rows} == {(96, 96, 3)}
    assert load_faces(path, "train").images.shape == (8, 3, 96, 96)
    wide = fitted(np.full((200, 400, 3), 200, np.uint8), 96)
    assert wide[:24].max() == 0
    assert wide[24:72].min() == 200


def test_a_number_of_images_is_drawn_by_the_seed(tmp_path: Path) -> None:
    folder = celeba(tmp_path / "celeba")
    first = [row["image_id"] for row in write(folder, "celeba", images=5)[1]]
    again = [row["image_id"] for row in write(folder, "celeba", images=5)[1]]
    other = [row["image_id"] for row in write(folder, "celeba", images=5, seed=1)[1]]
    assert len(first) == len(other) == 5
    assert first == again == sorted(first)
    assert first != other
    assert drawn([Photograph("a", "a", "train", None, None, None)], 5, 0)[0].name == "a"


def test_the_face_in_the_middle_is_meant() -> None:
    boxes = torch.tensor([[0.0, 0, 60, 60], [40, 40, 60, 62]])
    found = central([Found(boxes, torch.arange(20.0).view(2, 5, 2), torch.tensor([0.9, 0.8]))], 100, 100)
    assert found.boxes.tolist() == [[40, 40, 60, 62]]
    assert found.landmarks[0, 0].tolist() == [10, 11]


@pytest.mark.parametrize(
    ("make", "change", "said"),
    [
        (celeba, lambda f: shutil.rmtree(f), "no such folder. Put the data set there"),
        (celeba, lambda f: shutil.rmtree(f / "img_align_celeba"), "no aligned images; looked for img_align_celeba"),
        (celeba, lambda f: (f / "list_attr_celeba.txt").unlink(), "no list_attr_celeba.txt"),
        (celeba, lambda f: cut(f / "list_attr_celeba.txt"), "instead of the 12 it says; cut off"),
        (celeba, lambda f: (f / "list_attr_celeba.txt").write_text("<html>"), "does not begin as CelebA's list"),
        (celeba, lambda f: (f / "list_attr_celeba.txt").write_bytes(b"\xff\xfe\xff"), "not a text file"),
        (celeba, lambda f: celeba_parquet(f).rename(f.with_name("x")), "no such folder"),
        (fairface, lambda f: shutil.rmtree(f / "val"), r"no images \(train/ and val/\)"),
        (fairface, lambda f: (f / "fairface_label_val.csv").write_text("a,b\n1,2\n"), "no column file, age"),
        (fairface_parquet, lambda f: fairface_parquet(f, margin="1.25"), "Parquet files in several folders"),
        (fairface_parquet, lambda f: cut(next(f.rglob("train*"))), "not a complete Parquet file"),
        (fairface_parquet, lambda f: next(f.rglob("train*")).rename(f / "0.25/other.parquet"), "says no split"),
        (celeba_parquet, lambda f: shutil.move(next(f.rglob("test*")), f / "test-0-of-1.parquet"), "several folders"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, make: Callable, change: Callable, said: str) -> None:
    folder = make(tmp_path / "data")
    change(folder)
    with pytest.raises(UserError, match=said):
        write(folder, "fairface" if "fairface" in make.__name__ else "celeba")


def test_another_data_sets_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column Male, Young; another data set"):
        write(fairface_parquet(tmp_path / "data"), "celeba")


def test_without_identities_nobody_is_known(tmp_path: Path) -> None:
    folder = celeba(tmp_path / "celeba")
    (folder / "identity_CelebA.txt").unlink()
    found = open_celeba(folder).photographs(Defects("celeba", 0, 0))
    assert [it.identity for it in found] == [None] * 12


def test_both_margins_are_asked_about(tmp_path: Path) -> None:
    folder = fairface(tmp_path / "fairface", margin="025")
    fairface(folder, margin="125", packed=True)
    with pytest.raises(UserError, match="are there several times: fairface-img-margin025-trainval, fairface"):
        open_fairface(folder, 40)
    shutil.rmtree(folder / "fairface-img-margin025-trainval")
    (folder / "fairface-img-margin125-trainval").mkdir()  # half unpacked: the folder counts
    assert not open_fairface(folder, 40).photographs(Defects("fairface", 1, 1))


def cut(path: Path) -> None:
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
