"""Made-up gradient studies."""

import numpy as np

from distalign.store.parquet import GRADIENT_STUDY, to_table


def rows(quantity, place, backbone, guidance, steps, estimator, values):
    """Rows of values (places, runs)."""
    for (at, run), value in np.ndenumerate(values):
        row = dict.fromkeys(GRADIENT_STUDY.names)
        row |= {"backbone": backbone, "guidance": guidance, "sampler_steps": steps, "estimator": estimator}
        row |= {"quantity": quantity, "run": run, "value": None if np.isnan(value) else float(value), place: at}
        if place == "step":
            row["timestep"] = 999 - at * (999 // steps)
        yield row


def table(lines):
    return to_table({key: [line[key] for line in lines] for key in GRADIENT_STUDY.names}, GRADIENT_STUDY)


def curves(falls, iterations=20):
    """Losses from 1 to 1 - fall, one fall per run, constant over the last half."""
    lines = []
    for estimator, by_run in falls.items():
        course = np.minimum(1, 2 * np.arange(iterations) / iterations)[:, None]
        lines += rows("loss", "iteration", "shipped", 3.5, 7, estimator, 1 - course * np.array(by_run))
    return table(lines)


def sizes(first, steps=4):
    """Magnitudes from `first` at the first step to 1 at the last, times 1, 2, 3 for three runs; two guidances."""
    lines = []
    for guidance in (1.0, 7.5):
        for estimator, start in first.items():
            course = np.geomspace(start, 1, steps)[:, None] * np.array([1, 2, 3])
            lines += rows("magnitude", "step", "early", guidance, steps, estimator, course)
    return table(lines)
