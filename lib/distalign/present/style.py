"""One look for all figures: colour-blind safe, readable in print, and the same bytes for the same data."""

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pyarrow as pa
from matplotlib.figure import Figure

from distalign.config.attributes import RACE7
from distalign.store.files import atomic_write_bytes
from distalign.store.parquet import write_table

INK, MUTED, FAINT = "#1a1a1a", "#6b6b6b", "#d9d9d9"

# Okabe and Ito's palette, told apart with every common colour vision.
CLASS_COLOURS = {
    "gender": {"female": "#D55E00", "male": "#0072B2"},
    "race": {"wmelh": "#E69F00", "asian": "#009E73", "black": "#56B4E9", "indian": "#CC79A7"},
    "age": {"young": "#F0E442", "old": "#000000"},
    RACE7: {
        "white": "#E69F00",
        "middle_eastern": "#D55E00",
        "latino_hispanic": "#F0E442",
        "east_asian": "#009E73",
        "southeast_asian": "#0072B2",
        "black": "#56B4E9",
        "indian": "#CC79A7",
    },
}
# The first run shown is what the others are compared with.
RUN_COLOURS = ("#9a9a9a", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "figure.titlesize": 10,
    "figure.titleweight": "bold",
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "svg.hashsalt": "distalign",
}

# matplotlib writes dates and its version unless told not to.
METADATA: dict[str, dict[str, Any]] = {
    ".pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
    ".svg": {"Date": None, "Creator": None},
    ".png": {"Software": None},
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save inside this; settings of the user's own matplotlib do not shine through."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def write_figure_files(figure: Figure, paths: Iterable[Path], data: pa.Table, provenance: Mapping[str, Any]) -> None:
    """Write a figure to every path: pdf, svg and png, and parquet for the numbers it shows."""
    for path in map(Path, paths):
        if path.suffix == ".parquet":
            write_table(path, data, data.schema, provenance)
        else:
            atomic_write_bytes(path, render(figure, path.suffix))


def render(figure: Figure, suffix: str) -> bytes:
    """The bytes of a figure as `.pdf`, `.svg` or `.png`, without anything that changes from one time to the next."""
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format=suffix[1:], metadata=METADATA[suffix])
    return buffer.getvalue()
