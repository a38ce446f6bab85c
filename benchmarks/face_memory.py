"""Memory of reading a published face data set and of going through it as training does, for two numbers of images.

Makes a CelebA of its official layout, rendered portraits of its size in a zip file, every file different. Detection is
left out, as it looks at a batch at a time: a face is put into the middle of each image. Each part runs in a process of
its own. Beside the peak it prints how much of it the system cannot take back: images wait in a file, which is in
memory as far as there is room.

    python benchmarks/face_memory.py --images 30000 300000
"""

import argparse
import multiprocessing
import re
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from distalign.config.models.faces import Faces
from distalign.datasets.writing import write_published
from distalign.faces.dataset import load_faces
from distalign.faces.detector import Detector
from distalign.faces.detector import Faces as Found
from distalign.miniworld.renderer import render
from distalign.miniworld.scenes import draw_identities, draw_scene, random_looks

WIDTH, HEIGHT = 178, 218
PORTRAITS = 256
ATTRIBUTES = [f"Attribute_{number}" for number in range(38)]
SPLITS = "0000000012"  # of ten images, eight to train on
BATCH = 256
GOAL = 4096  # MB
POLL_SECONDS = 0.05


class Middle:
    """A detector that finds a face in the middle of every image."""

    def detect(self, images: torch.Tensor) -> list[Found]:
        """One face for each of images (B, 3, H, W)."""
        height, width = images.shape[-2:]
        box = torch.tensor([[width * 0.3, height * 0.3, width * 0.7, height * 0.7]])
        return [Found(box, box[:, :2].repeat(5, 1)[None], torch.ones(1)) for _ in images]


def make(folder: Path, images: int) -> None:
    """Write a CelebA of so many images."""
    rng = np.random.default_rng(0)
    people = draw_identities(PORTRAITS, rng)
    scene = draw_scene(random_looks(PORTRAITS, rng), people, np.zeros(PORTRAITS, int), rng)
    pictures = [_picture(it.permute(1, 2, 0).numpy(), rng) for it in render(people, scene)]
    names = [f"{number:06d}.jpg" for number in range(1, images + 1)]
    folder.mkdir()
    rows = [f"{name} {' '.join(['-1'] * 39)} 1" for name in names]
    _lines(folder / "list_attr_celeba.txt", [str(images), " ".join([*ATTRIBUTES, "Male", "Young"]), *rows])
    _lines(folder / "identity_CelebA.txt", [f"{name} {number // 20}" for number, name in enumerate(names)])
    _lines(folder / "list_eval_partition.txt", [f"{n} {SPLITS[i % 10]}" for i, n in enumerate(names)])
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for number, name in enumerate(names):
            before, after = pictures[number % PORTRAITS]
            comment = f"{number:08d}".encode()
            marker = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment  # so that no two files are equal
            archive.writestr(f"img_align_celeba/{name}", before + marker + after)


def _picture(portrait: np.ndarray[Any, Any], rng: np.random.Generator) -> tuple[bytes, bytes]:
    """A portrait as JPEG of the size of CelebA's, with the grain of a photograph: its first two bytes, and the rest."""
    canvas = np.asarray(Image.fromarray(portrait).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(float)
    grainy = (canvas + rng.normal(0, 6, canvas.shape)).clip(0, 255).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(grainy).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()[:2], buffer.getvalue()[2:]


def _lines(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n")


def read(folder: Path, faces: Path) -> None:
    """The data set into the Parquet file of faces."""
    spec = Faces(source="celeba", path=folder.name).meaning()
    write_published(faces, spec, folder.parent, cast(Detector, Middle()), {})


def train(_: Path, faces: Path) -> None:
    """Every face of the training split once, in random order, as an epoch takes them."""
    loaded = load_faces(faces, "train")
    for rows in torch.randperm(len(loaded)).split(BATCH):
        loaded.images[rows]


def measured(stage: Callable[[Path, Path], None], folder: Path, faces: Path, told: Any) -> None:
    """In a process of its own: a stage; tells its seconds, peak MB and peak MB without mapped files."""
    anonymous, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            anonymous[0] = max(anonymous[0], _megabytes("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    stage(folder, faces)
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    told.put((seconds, _megabytes("VmHWM"), anonymous[0]))


def _megabytes(name: str) -> int:
    """What Linux says of this process."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) // 1024 if found else 0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[30_000, 300_000])
    parser.add_argument(
        "--folder", type=Path, help="where to put the data set (12 kB per image, and twice that besides)"
    )
    options = parser.parse_args()
    own = multiprocessing.get_context("spawn")
    print("| images | part | seconds | peak MB | of it, not of mapped files |\n|---|---|---|---|---|")
    largest = 0
    for images in options.images:
        with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
            folder, faces = Path(scratch, "celeba"), Path(scratch, "faces.parquet")
            make(folder, images)
            for stage, words in ((read, "reading"), (train, "an epoch's images")):
                told = own.Queue()
                process = own.Process(target=measured, args=(stage, folder, faces, told))
                process.start()
                process.join()
                if process.exitcode:
                    raise SystemExit(f"{words}: process ended with status {process.exitcode}")
                seconds, peak, anonymous = told.get()
                largest = max(largest, peak)
                print(f"| {images:,} | {words} | {seconds:.0f} | {peak:,} | {anonymous:,} |", flush=True)
    print(f"\ngoal, peak below {GOAL:,} MB: {'reached' if largest < GOAL else 'not reached'}")


if __name__ == "__main__":
    main()
