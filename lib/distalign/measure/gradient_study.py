"""What a gradient study shows, in few numbers: does the loss fall, and do gradients explode?"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import t

from distalign.errors import UserError
from distalign.store.parquet import to_table

LAST_SHARE = 0.1  # of the iterations, whose mean is the loss in the end
INTERVAL = (5, 95)  # percentiles over runs that figures show, as the paper's 90%
CELL = ("backbone", "guidance", "sampler_steps")

# quantity of `kind: loss`: loss_first, loss_last, loss_fall, and loss_fall_against_adjusted (of the same run: below 0
# where an estimator does worse). Of `kind: magnitude`, powers of ten: growth_orders, the first sampler step's magnitude
# (t near T) over the last one's; coupling_orders, the exact one's over the unstandardised one's at the first step: what
# the factor B does; coupling_peak_orders, the same at whichever step it is largest; and first_step_variation, standard
# deviation over mean among runs at the first step (no interval).
GRADIENT_SUMMARY = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("estimator", pa.string(), nullable=False),
        pa.field("guidance", pa.float64(), nullable=False),
        pa.field("steps", pa.int32(), nullable=False),
        pa.field("backbone", pa.string(), nullable=False),
        pa.field("quantity", pa.string(), nullable=False),
        *(pa.field(key, pa.float64()) for key in ("value", "low", "high")),
        pa.field("n", pa.int32(), nullable=False),
    ]
)

Values = NDArray[np.float64]


def summarise(name: str, study: pa.Table) -> pa.Table:
    """Schema GRADIENT_SUMMARY: means over runs with their 95% interval (Student's t), per cell and estimator.

    There is no interval with a single run, nor where a run has no finite value.

    Args:
        name: of the study.
        study: schema GRADIENT_STUDY.

    Raises:
        UserError: the study is empty.
    """
    rows = []
    for quantity, measure in (("loss", _of_losses), ("magnitude", _of_magnitudes)):
        for cell, estimators in by_cell(study, quantity).items():
            for estimator in estimators:
                for what, value, low, high in measure(estimators, estimator):
                    about = {
                        "name": name,
                        "estimator": estimator,
                        "quantity": what,
                        "n": estimators[estimator].shape[1],
                    }
                    place = dict(zip(("backbone", "guidance", "steps"), cell, strict=True))
                    rows.append({**about, **place, "value": value, "low": low, "high": high})
    if not rows:
        raise UserError(f"gradient study {name!r} is empty; delete its file and run again")
    return to_table({key: [row[key] for row in rows] for key in GRADIENT_SUMMARY.names}, GRADIENT_SUMMARY)


def by_cell(study: pa.Table, quantity: str) -> dict[tuple[Any, ...], dict[str, Values]]:
    """Values (iterations or steps, runs) of a quantity by (backbone, guidance, sampler_steps) and estimator."""
    found: dict[tuple[Any, ...], dict[str, dict[tuple[int, int], float]]] = {}
    place = "iteration" if quantity != "magnitude" else "step"
    for row in study.to_pylist():
        if row["quantity"] == quantity:
            own = found.setdefault(tuple(row[key] for key in CELL), {}).setdefault(row["estimator"], {})
            own[row[place], row["run"]] = np.nan if row["value"] is None else row["value"]
    return {cell: {name: _grid(values) for name, values in estimators.items()} for cell, estimators in found.items()}


def _grid(values: dict[tuple[int, int], float]) -> Values:
    grid = np.full(np.max(list(values), axis=0) + 1, np.nan)
    for place, value in values.items():
        grid[place] = value
    return grid


Summary = tuple[str, float, float | None, float | None]


def _of_losses(curves: dict[str, Values], estimator: str) -> Iterator[Summary]:
    def ends(curve: Values) -> tuple[Values, Values]:
        return curve[0], curve[-max(1, round(LAST_SHARE * len(curve))) :].mean(axis=0)

    first, last = ends(curves[estimator])
    yield _over_runs("loss_first", first)
    yield _over_runs("loss_last", last)
    yield _over_runs("loss_fall", first - last)
    if "adjusted" in curves and estimator != "adjusted":
        reference, end = ends(curves["adjusted"])
        yield _over_runs("loss_fall_against_adjusted", (first - last) - (reference - end))


def _of_magnitudes(sizes: dict[str, Values], estimator: str) -> Iterator[Summary]:
    own = sizes[estimator]
    yield _over_runs("growth_orders", orders(own[0], own[-1]))
    yield "first_step_variation", float(own[0].std() / own[0].mean()), None, None
    if estimator == "exact" and "unstandardised" in sizes:
        coupling = orders(own, sizes["unstandardised"])
        yield _over_runs("coupling_orders", coupling[0])
        yield _over_runs("coupling_peak_orders", coupling.max(axis=0))


def orders(large: Values, small: Values) -> Values:
    """Powers of ten between two magnitudes; infinite where one of them is 0."""
    with np.errstate(divide="ignore"):
        return np.log10(large) - np.log10(small)


def _over_runs(what: str, values: Values) -> Summary:
    mean, runs = float(values.mean()), len(values)
    if runs < 2 or not np.isfinite(values).all():
        return what, mean, None, None
    half = float(t.ppf(0.975, runs - 1) * values.std(ddof=1) / np.sqrt(runs))
    return what, mean, mean - half, mean + half
