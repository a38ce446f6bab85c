"""Tiny CelebA and FairFace in the layouts they are published in, with rendered people.

CelebA: `list_attr_celeba.txt` (a count, 40 names, then name and 40 times 1 or -1, blanks to align), two more lists, and
the aligned images of 178 x 218. FairFace: two tables and images of 224 x 224 below train/ and val/. The Parquet forms
are those of flwrlabs/celeba and HuggingFaceM4/FairFace.
"""

import csv
import io
import json
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from distalign.miniworld.people import People
from distalign.miniworld.renderer import render
from distalign.miniworld.scenes import draw_identities, draw_scene, random_looks

CELEBA_SIZE, FAIRFACE_SIZE = (178, 218), (224, 224)
OTHER_ATTRIBUTES = [f"Attribute_{i}" for i in range(38)]
PARTS = ["0", "0", "0", "0", "1", "2"]
AGES = ["0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70"]
RACES = ["East Asian", "Indian", "Black", "White", "Middle Eastern", "Latino_Hispanic", "Southeast Asian"]


@cache
def portraits(count: int, width: int, height: int) -> tuple[list[bytes], People]:
    """JPEG bytes of rendered portraits, brought to a size, and who is in them."""
    rng = np.random.default_rng(3)
    people = draw_identities(count, rng)
    scene = draw_scene(random_looks(count, rng), people, np.zeros(count, int), rng)
    return [jpeg(it.permute(1, 2, 0).numpy(), width, height) for it in render(people, scene)], people


def jpeg(pixels: np.ndarray, width: int, height: int) -> bytes:
    """JPEG bytes of an image in the middle of one of another size."""
    side = min(width, height)
    canvas = Image.new("RGB", (width, height), (90, 90, 90))
    portrait = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
    canvas.paste(portrait, ((width - side) // 2, (height - side) // 2))
    buffer = io.BytesIO()
    canvas.save(buffer, format="JPEG", quality=92)
    return buffer.getvalue()


def celeba(folder: Path, count: int = 12, packed: bool = False, divided: bool = False) -> Path:
    """Official files; `packed`: images stay in their zip file; `divided`: below Anno/, Eval/ and Img/."""
    places = ("Anno", "Eval", "Img") if divided else (".", ".", ".")
    anno, evaluation, img = (folder / place for place in places)
    images, people = portraits(count, *CELEBA_SIZE)
    names = [f"{i:06d}.jpg" for i in range(1, count + 1)]
    male, young = (np.array(people.labels(it)) == word for it, word in (("gender", "male"), ("age", "young")))
    signs = [[-1] * 38 + [1 if m else -1, 1 if y else -1] for m, y in zip(male, young, strict=True)]
    lines = [f"{name} {' '.join(f'{it:2d}' for it in row)}" for name, row in zip(names, signs, strict=True)]
    _write(anno / "list_attr_celeba.txt", [str(count), " ".join([*OTHER_ATTRIBUTES, "Male", "Young"]) + " ", *lines])
    _write(anno / "identity_CelebA.txt", [f"{name} {100 + i // 2}" for i, name in enumerate(names)])
    _write(evaluation / "list_eval_partition.txt", [f"{name} {PARTS[i % 6]}" for i, name in enumerate(names)])
    put_images(img / "img_align_celeba", dict(zip(names, images, strict=True)), packed)
    return folder


def fairface(folder: Path, count: int = 12, packed: bool = False, margin: str | None = None) -> Path:
    """Official files: a third in val; `margin` (025, 125): below the folder, or in the zip file, of that name."""
    images, people = portraits(count, *FAIRFACE_SIZE)
    genders = [word.capitalize() for word in people.labels("gender")]
    named = {}
    for part, rows in (("train", range(count * 2 // 3)), ("val", range(count * 2 // 3, count))):
        path = folder / f"fairface_label_{part}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["file", "age", "gender", "race", "service_test"])
            for number, row in enumerate(rows, 1):
                name = f"{part}/{number}.jpg"
                table.writerow([name, AGES[row % 9], genders[row], RACES[row % 7], row % 2 == 0])
                named[name] = images[row]
    put_images(folder / f"fairface-img-margin{margin}-trainval" if margin else folder, named, packed)
    return folder


def put_images(folder: Path, named: Mapping[str, bytes], packed: bool) -> None:
    """Write images below a folder, or into a zip file of its name that begins with the folder."""
    if packed:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder.with_name(folder.name + ".zip"), "w") as archive:
            for name, data in named.items():
                archive.writestr(f"{folder.name}/{name}", data)
        return
    for name, data in named.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def celeba_parquet(folder: Path, count: int = 12) -> Path:
    """flwrlabs/celeba: attributes as booleans, files of each split in a folder of the configuration."""
    images, people = portraits(count, *CELEBA_SIZE)
    male, young = (np.array(people.labels(it)) == word for it, word in (("gender", "male"), ("age", "young")))
    for split, rows in (
        ("train", range(count - 4)),
        ("valid", range(count - 4, count - 2)),
        ("test", range(count - 2, count)),
    ):
        columns = {
            "image": [{"bytes": images[i], "path": f"{i + 1:06d}.jpg"} for i in rows],
            "celeb_id": [100 + i // 2 for i in rows],
            "Male": [bool(male[i]) for i in rows],
            "Young": [bool(young[i]) for i in rows],
        }
        write_hub(folder / "img_align+identity+attr" / f"{split}-00000-of-00001.parquet", columns, {})
    return folder


def fairface_parquet(folder: Path, count: int = 12, margin: str = "0.25", named: bool = True) -> Path:
    """HuggingFaceM4/FairFace: labels as numbers, whose words the file's metadata has (`named`)."""
    images, people = portraits(count, *FAIRFACE_SIZE)
    genders = people.labels("gender")
    words = {"age": AGES, "gender": ["Male", "Female"], "race": RACES} if named else {}
    files = {  # called as those of 0.25 are there
        "train-00000-of-00002-d405faba4f4b9b85": range(count // 3),
        "train-00001-of-00002-dd3cb68164727418": range(count // 3, count * 2 // 3),
        "validation-00000-of-00001-951dbd63c8724ee1": range(count * 2 // 3, count),
    }
    for name, rows in files.items():
        columns = {
            "image": [{"bytes": images[i], "path": None} for i in rows],
            "age": [i % 9 for i in rows],
            "gender": [0 if genders[i] == "male" else 1 for i in rows],
            "race": [i % 7 for i in rows],
            "service_test": [i % 2 == 0 for i in rows],
        }
        write_hub(folder / margin / f"{name}.parquet", columns, words)
    return folder


def write_hub(path: Path, columns: Mapping[str, list[Any]], words: Mapping[str, list[str]]) -> None:
    """Write a Parquet file as the hub's library does: features in the metadata, small row groups."""
    features: dict[str, Any] = {name: {"names": it, "_type": "ClassLabel"} for name, it in words.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features | {"image": {"_type": "Image"}}}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)).replace_schema_metadata(metadata), path, row_group_size=3)


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
