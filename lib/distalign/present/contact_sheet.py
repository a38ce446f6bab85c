"""Images of the same noise by several runs, with detected faces and predicted attributes (the paper's figure 3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray
from PIL import Image

from distalign.config.attributes import ATTRIBUTES
from distalign.errors import UserError
from distalign.present.labels import class_label
from distalign.present.style import CLASS_COLOURS, FAINT, INK, MUTED, styled
from distalign.store.parquet import class_columns, decode_image

COLUMNS = 4  # images side by side, per run
TILE = 256  # larger images are scaled down to this many pixels
# In inches:
WIDTH, LEAST, LARGEST = 8.0, 4.5, 1.3  # all images together, the page at least, one image at most
EDGE, TITLE, LEGEND = 0.12, 0.62, 0.16  # around everything; above the images, for title and each line of the legend
# In units of an image's side:
GAP, BLOCK_GAP, LINE, HEAD = 0.07, 0.35, 0.15, 0.3

SHEET = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("noise_seed", pa.int64(), nullable=False),
        pa.field("found", pa.bool_(), nullable=False),
        *(pa.field(name, pa.float32()) for name in ("x1", "y1", "x2", "y2")),
        pa.field("classes", pa.map_(pa.string(), pa.string())),
        pa.field("confidences", pa.map_(pa.string(), pa.float32())),
    ]
)


@dataclass(frozen=True)
class Shown:
    """One image of the sheet and what was read from it."""

    image: NDArray[np.uint8]
    row: dict[str, Any]


def contact_sheet(
    runs: Mapping[str, tuple[pa.Table, pa.Table]],
    attributes: Sequence[str],
    classifier: str,
    title: str,
    prompts: int | None = None,
    images: int = 8,
    labels: Mapping[str, str] | None = None,
) -> tuple[Figure, pa.Table]:
    """Draw a block of images per prompt and run; runs stand side by side, images of one noise in the same place.

    The frame around a face has the colour of the first attribute's predicted class; under each image, every
    attribute's class and how sure the classifier is (a full bar is probability 1).

    Args:
        runs: by name, (IMAGES, CLASSIFIED) of one evaluation.
        attributes: whose predictions are shown.
        classifier: who predicted.
        title: of the figure.
        prompts: only the first so many.
        images: per prompt and run.
        labels: what runs are called; the others by their names.

    Returns:
        the figure, and what it shows (schema SHEET).

    Raises:
        UserError: the runs' images were not made from the same noise, or predictions are missing.
    """
    blocks = {run: _collect(run, *tables, attributes, classifier, prompts, images) for run, tables in runs.items()}
    _check_same_noise(blocks)
    layout = Layout(blocks, len(attributes))
    with styled():
        figure = Figure(figsize=layout.size)
        axes = figure.add_axes(layout.place, xlim=(0, layout.width), ylim=(layout.height, 0))
        axes.axis("off")
        figure.text(layout.place[0], 1 - EDGE / layout.size[1], title, va="top", fontsize=10, weight="bold")
        _legend(figure, attributes, layout)
        for column, (run, block) in enumerate(blocks.items()):
            left = layout.block * column
            axes.text(left, 0.02, (labels or {}).get(run, run), fontsize=8.5, weight="bold", color=INK, va="bottom")
            for line, (prompt, shown) in enumerate(block.items()):
                top = line * layout.band + HEAD
                if column == 0:
                    axes.text(left, top - 0.07, prompt, fontsize=7, color=MUTED, va="bottom")
                for index, item in enumerate(shown):
                    corner = (left + index % COLUMNS * (1 + GAP), top + index // COLUMNS * layout.cell)
                    _draw_image(axes, item, corner, attributes, layout.scale)
    rows = [item.row for block in blocks.values() for shown in block.values() for item in shown]
    return figure, pa.Table.from_pylist(rows, schema=SHEET)


class Layout:
    """Where things stand, in units of an image's side; `size` and `place` are what matplotlib wants to know."""

    def __init__(self, blocks: Mapping[str, Mapping[str, Sequence[Shown]]], attributes: int) -> None:
        first = next(iter(blocks.values()))
        most = max(len(shown) for shown in first.values())
        self.cell = 1 + LINE * attributes + 2 * GAP
        self.band = ceil(most / COLUMNS) * self.cell + HEAD
        self.block = min(COLUMNS, most) * (1 + GAP) - GAP + BLOCK_GAP
        self.width = len(blocks) * self.block - BLOCK_GAP
        self.height = len(first) * self.band
        # An image is this many inches wide: the page is full, unless that made a few images huge.
        self.scale = min(WIDTH / self.width, LARGEST)
        inner = (self.width * self.scale, self.height * self.scale)
        self.size = (max(inner[0], LEAST) + 2 * EDGE, inner[1] + TITLE + LEGEND * attributes + EDGE)
        self.place = (EDGE / self.size[0], EDGE / self.size[1], inner[0] / self.size[0], inner[1] / self.size[1])


def _collect(
    label: str, pictures: pa.Table, classified: pa.Table, attributes: Sequence[str], classifier: str,
    prompts: int | None, images: int,
) -> dict[str, list[Shown]]:  # fmt: skip
    """The images shown of one run, by prompt text."""
    needed = [column for attribute in attributes for column in class_columns(attribute, classifier)]
    missing = sorted(set(needed) - set(classified.column_names))
    if missing:
        raise UserError(f"{label}: classifier {classifier!r} has no predictions {missing[0]!r}")
    predictions = {(row["prompt_id"], row["index"]): row for row in classified.to_pylist()}
    keys = pictures.select(["prompt_id", "prompt", "index", "noise_seed"]).to_pylist()
    chosen = list(dict.fromkeys(row["prompt_id"] for row in keys))[:prompts]
    block: dict[str, list[Shown]] = {}
    for position, key in enumerate(keys):
        if key["prompt_id"] in chosen and key["index"] < images:
            image = decode_image(pictures["image"][position]["bytes"].as_py())
            found = predictions[key["prompt_id"], key["index"]]
            block.setdefault(key["prompt"], []).append(Shown(image, _row(label, key, found, attributes, classifier)))
    return block


def _row(
    label: str, key: Mapping[str, Any], found: Mapping[str, Any], attributes: Sequence[str], classifier: str
) -> dict[str, Any]:
    classes, confidences = [], []
    for attribute in attributes if found["found"] else ():
        probabilities = [found[column] for column in class_columns(attribute, classifier)]
        top = int(np.argmax(probabilities))
        classes.append((attribute, ATTRIBUTES[attribute][top]))
        confidences.append((attribute, probabilities[top]))
    box = {name: found[name] for name in ("found", "x1", "y1", "x2", "y2")}
    return {"run": label, **key, **box, "classes": classes, "confidences": confidences}


def _check_same_noise(blocks: Mapping[str, Mapping[str, Sequence[Shown]]]) -> None:
    (first, reference), *others = blocks.items()
    for label, block in others:
        if _noises(block) != _noises(reference):
            raise UserError(
                f"the images of {label!r} and {first!r} were not made from the same noise: prompts, number of images "
                "or seeds differ. Show runs of the same seed and evaluation."
            )


def _noises(block: Mapping[str, Sequence[Shown]]) -> list[tuple[str, int, int]]:
    rows = [item.row for shown in block.values() for item in shown]
    return [(row["prompt_id"], row["index"], row["noise_seed"]) for row in rows]


def _draw_image(axes: Axes, item: Shown, corner: tuple[float, float], attributes: Sequence[str], scale: float) -> None:
    (left, top), row = corner, item.row
    height, width = item.image.shape[:2]
    picture = Image.fromarray(item.image)
    picture.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    axes.imshow(np.asarray(picture), extent=(left, left + 1, top + 1, top), interpolation="nearest", aspect="auto")
    if not row["found"]:
        axes.add_patch(Rectangle((left, top), 1, 1, fill=False, edgecolor=MUTED, linewidth=0.8, linestyle=":"))
        style: dict[str, Any] = {"fontsize": 6 * scale, "color": MUTED, "va": "center"}
        axes.text(left, top + 1 + GAP / 2 + LINE / 2, "no face found", **style)
        return
    classes, confidences = dict(row["classes"]), dict(row["confidences"])
    x1, x2 = (np.clip(row[name] / width, 0, 1) for name in ("x1", "x2"))
    y1, y2 = (np.clip(row[name] / height, 0, 1) for name in ("y1", "y2"))
    for colour, line in (("white", 2.2), (CLASS_COLOURS[attributes[0]][classes[attributes[0]]], 1.3)):
        axes.add_patch(Rectangle((left + x1, top + y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=line))
    for number, attribute in enumerate(attributes):
        level = top + 1 + GAP / 2 + number * LINE
        axes.text(left, level + LINE / 2, class_label(classes[attribute]), fontsize=6 * scale, color=INK, va="center")
        colour, share = CLASS_COLOURS[attribute][classes[attribute]], confidences[attribute]
        for part, shade in ((1.0, FAINT), (share, colour)):
            axes.add_patch(Rectangle((left + 0.5, level + 0.3 * LINE), part / 2, 0.4 * LINE, color=shade, linewidth=0))


def _legend(figure: Figure, attributes: Sequence[str], layout: Layout) -> None:
    """Classes and their colours, one line per attribute."""
    for number, name in enumerate(attributes):
        handles = [Patch(color=CLASS_COLOURS[name][value], label=class_label(value)) for value in ATTRIBUTES[name]]
        level = 1 - (EDGE + 0.24 + LEGEND * number) / layout.size[1]
        word = f"predicted {name}" + (": frame and bar" if number == 0 else ": bar (full: probability 1)")
        figure.text(layout.place[0], level, word, fontsize=7.5, va="top")
        figure.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(layout.place[0] + 2.3 / layout.size[0], level),
            ncols=len(handles), borderaxespad=0, borderpad=0, handlelength=1, columnspacing=1.2,
        )  # fmt: skip
