"""Labels beside points, where they hide neither points nor each other."""

from collections.abc import Iterator, Mapping
from math import cos, pi, sin
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from distalign.present.style import INK, MUTED

SIZE = 6.5  # of the letters
DISTANCES = (4, 9, 15, 22, 30, 40, 52)  # between point and label, in 1/72 inch
DIRECTIONS = [index * pi / 8 for index in range(16)]  # the first, tried first, is to the right
POINT = 3.5  # half the side of a point's square
LEADER = 9  # labels farther away than this are tied to their point by a line


def place_labels(axes: Axes, labels: Mapping[tuple[float, float], str]) -> None:
    """Write a label beside each point {(x, y): text}, in data coordinates; call it when all else is drawn.

    One after the other, from the top, each takes the nearest free place; if there is none, where it covers least.
    """
    figure = axes.figure.get_figure(root=True)
    assert figure is not None  # an axes that is drawn on has one
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # settles the layout
    scale = figure.dpi / 72
    points = {at: (float(x), float(y)) for at in labels for x, y in [axes.transData.transform(at)]}
    half = POINT * scale
    taken = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in points.values()]
    page = axes.get_window_extent(renderer)
    for at, text in sorted(labels.items(), key=lambda item: -item[0][1]):
        note = axes.annotate(text, at, xytext=(0, 0), textcoords="offset points", fontsize=SIZE, color=INK)
        extent = note.get_window_extent(renderer)
        size = (extent.width / scale, extent.height / scale)
        offset, distance = min(_places(*size), key=lambda place: _cost(place, points[at], size, scale, taken, page))
        note.remove()
        style: dict[str, Any] = {"fontsize": SIZE, "color": INK, "ha": "center", "va": "center", "zorder": 4}
        style["path_effects"] = [withStroke(linewidth=1.5, foreground="white")]
        if distance > LEADER:
            style["arrowprops"] = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(text, at, xytext=offset, textcoords="offset points", **style).set_in_layout(False)
        taken.append(_box(offset, points[at], size, scale))


def _places(width: float, height: float) -> Iterator[tuple[tuple[float, float], int]]:
    """Offsets of a label's middle from its point, the nearest first, and how far the label's edge is then away."""
    for distance in DISTANCES:
        for angle in DIRECTIONS:
            yield (cos(angle) * (distance + width / 2), sin(angle) * (distance + height / 2)), distance


def _box(offset: tuple[float, float], point: tuple[float, float], size: tuple[float, float], scale: float) -> Bbox:
    x, y = (point[axis] + offset[axis] * scale for axis in (0, 1))
    half_width, half_height = size[0] * scale / 2, size[1] * scale / 2
    return Bbox.from_extents(x - half_width, y - half_height, x + half_width, y + half_height)


def _cost(
    place: tuple[tuple[float, float], int],
    point: tuple[float, float],
    size: tuple[float, float],
    scale: float,
    taken: list[Bbox],
    page: Bbox,
) -> float:
    """Area a label would cover, or stick out of the panel, in label areas; ties go to the nearer place."""
    offset, distance = place
    box = _box(offset, point, size, scale)
    area = box.width * box.height
    outside = area - _overlap(box, page)
    return (sum(_overlap(box, other) for other in taken) + 2 * outside) / area + distance / 1000


def _overlap(one: Bbox, two: Bbox) -> float:
    width = min(one.x1, two.x1) - max(one.x0, two.x0)
    height = min(one.y1, two.y1) - max(one.y0, two.y0)
    return max(width, 0.0) * max(height, 0.0)
