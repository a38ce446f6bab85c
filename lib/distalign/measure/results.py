"""The tidy table of results: every metric per prompt and per run, with spread and confidence interval."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distalign.config.metrics import SECONDS
from distalign.measure import similarity
from distalign.measure.bias import RunKey, bias, cell_shares, cells, frequencies_of, number_prompts, target_distance
from distalign.measure.bootstrap import interval, resample_counts, resample_means, resample_prompts, wilson
from distalign.store.parquet import BIAS, CLASSIFIED, RESULTS, TRAIN_LOG, read_table, to_table
from distalign.store.seeds import stable_seed

Array = NDArray[np.float64]
Target = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Measurement:
    """One metric on a run: estimate, spread over images and count per prompt (P,), bootstrap replicates (R, P)."""

    metric: str
    classifier: str | None
    values: Array
    deviations: Array
    counts: NDArray[np.int64]
    replicates: Array | None
    bounds: tuple[float, float]
    is_share: bool = False


def run_results(bias_rows: pa.Table, classified: pa.Table, target: Target | None = None) -> pa.Table:
    """Bring one evaluation of one run into tidy form.

    Args:
        bias_rows: schema BIAS, as `bias_table` made it from `classified`.
        classified: schema CLASSIFIED.
        target: {attribute: {class: share}} distances are measured to, instead of the run's own.

    Returns:
        rows of schema RESULTS: per metric one for each prompt and, with prompt_id null, one for the run.
    """
    prompts, prompt_index = number_prompts(classified["prompt_id"].to_pylist())
    key = RunKey(**bias_rows.select(["preset", "run", "seed", "evaluation"]).slice(0, 1).to_pylist()[0])
    measured = [
        *_attribute_measurements(bias_rows.to_pylist(), target),
        *_image_measurements(classified, prompt_index, len(prompts)),
    ]
    rows = [{**asdict(key), **row} for measurement in measured for row in _rows(measurement, prompts)]
    return to_table({name: [row[name] for row in rows] for name in RESULTS.names}, RESULTS)


def collect_results(
    bias_files: Sequence[Path],
    classified_files: Sequence[Path],
    read: Mapping[str, Sequence[str]],
    target: Target | None = None,
    measured: Sequence[Path] = (),
) -> pa.Table:
    """Read the measurements of several evaluations, in pairs, and bring them into one tidy table.

    Args:
        bias_files: schema BIAS.
        classified_files: schema CLASSIFIED, of the same evaluations in the same order.
        read: the attributes each classifier reads.
        target: as for `run_results`.
        measured: schema RESULTS, measures of all images together and costs; they are added as they are.
    """
    schema = CLASSIFIED(read)
    pairs = zip(bias_files, classified_files, strict=True)
    tables = [run_results(read_table(a, BIAS), read_table(b, schema), target) for a, b in pairs]
    return pa.concat_tables([*tables, *(read_table(path, RESULTS) for path in measured)])


def training_seconds(rows: Iterable[Mapping[str, Any]], train_logs: Iterable[Path]) -> pa.Table:
    """Seconds of finetuning or fitting behind each row of a table, validation aside, as rows of schema RESULTS.

    A run whose log has none was not made here, and has no such row.

    Args:
        rows: run, seeds and evaluation of each.
        train_logs: `.../{preset}/runs/{run}/{seed}/train_log.parquet`, schema TRAIN_LOG, of some of the runs.
    """
    spent: dict[tuple[str, int], dict[str, Any]] = {}
    for path in train_logs:
        preset, _, run, seed = path.parts[-5:-1]
        lines = read_table(path, TRAIN_LOG, ["phase", "metric", "value"]).to_pylist()
        seconds = [line["value"] for line in lines if (line["phase"], line["metric"]) == ("train", SECONDS)]
        if seconds:
            spent[run, int(seed)] = {"preset": preset, "value": sum(seconds), "n": len(seconds)}
    found = [
        {"run": row["run"], "seed": seed, "evaluation": row["evaluation"], "metric": SECONDS, **spent[row["run"], seed]}
        for row in rows
        for seed in row["seeds"]
        if (row["run"], seed) in spent
    ]
    return to_table({name: [row.get(name) for row in found] for name in RESULTS.names}, RESULTS)


def _attribute_measurements(rows: list[dict[str, Any]], target: Target | None) -> Iterator[Measurement]:
    """bias, floor and distance of each classifier and attribute; class frequencies of single attributes."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["classifier"], row["attribute"]), []).append(row)
    for (classifier, attribute), group in groups.items():
        names = cells(attribute)
        counts = np.array([_cell_counts(row, names) for row in group])
        own = dict(group[0]["target"])
        wanted = cell_shares(attribute, target) if target else np.array([own[name] for name in names])
        floors = np.array([np.nan if row["floor"] is None else row["floor"] for row in group])
        shares = frequencies_of(counts)
        drawn = frequencies_of(resample_counts(counts, stable_seed("images", classifier, attribute)))
        statistics: dict[str, tuple[Array, Array | None, float]] = {
            f"bias/{attribute}": (bias(shares), bias(drawn), 2 / len(names)),
            f"floor/{attribute}": (floors, None, 1.0),
            f"distance/{attribute}": (
                target_distance(shares, wanted),
                target_distance(drawn, wanted),
                1.0,
            ),
        }
        if "+" not in attribute:
            for index, name in enumerate(names):
                statistics[f"frequency/{attribute}={name}"] = (shares[..., index], drawn[..., index], 1.0)
        faces, none = counts[:, :-1].sum(axis=1), np.full(len(group), np.nan)
        for metric, (values, replicates, top) in statistics.items():
            is_share = metric.startswith("frequency/")
            yield Measurement(metric, classifier, values, none, faces, replicates, (0.0, top), is_share)


def _cell_counts(row: dict[str, Any], names: tuple[str, ...]) -> list[int]:
    """Images per cell of one prompt, and last those without a face."""
    shares = dict(row["frequencies"])
    faces = [round(shares.get(name, 0.0) * row["n_faces"]) for name in names]
    return [*faces, row["n_images"] - row["n_faces"]]


def _image_measurements(classified: pa.Table, prompt_index: NDArray[np.int64], prompts: int) -> Iterator[Measurement]:
    for metric, (_, bounds) in similarity.IMAGE_METRICS.items():
        values = similarity.values_by_prompt(classified, metric, prompt_index, prompts)
        if any(len(own) for own in values):
            replicates = resample_means(values, stable_seed("images", metric))
            counts = np.array([len(own) for own in values])
            means, deviations = similarity.means(values), similarity.deviations(values)
            is_share = metric in similarity.SHARES
            yield Measurement(metric, None, means, deviations, counts, replicates, bounds, is_share)


def _rows(measurement: Measurement, prompts: list[str]) -> Iterator[dict[str, Any]]:
    """One row for the run, then one for each prompt."""
    values, known = measurement.values, ~np.isnan(measurement.values)
    mean = np.mean(values[known]) if known.any() else np.nan
    nothing = np.full(len(values), np.nan)
    run_low, run_high, low, high = np.array(np.nan), np.array(np.nan), nothing, nothing
    if measurement.replicates is not None:
        over_prompts = resample_prompts(measurement.replicates, stable_seed("prompts"))
        run_low, run_high = interval(np.array(mean), over_prompts, measurement.bounds)
        low, high = interval(values, measurement.replicates, measurement.bounds)
    if measurement.is_share:
        low, high = wilson(values, measurement.counts)
    spread = np.std(values[known], ddof=1) if known.sum() > 1 else np.nan
    common = {"classifier": measurement.classifier, "metric": measurement.metric}
    yield {**common, "prompt_id": None, **_numbers(mean, spread, run_low, run_high), "n": int(known.sum())}
    for index, prompt in enumerate(prompts):
        numbers = _numbers(values[index], measurement.deviations[index], low[index], high[index])
        yield {**common, "prompt_id": prompt, **numbers, "n": int(measurement.counts[index])}


def _numbers(value: Any, std: Any, low: Any, high: Any) -> dict[str, float | None]:
    """As stored: null instead of nan."""
    numbers = {"value": value, "std": std, "low": low, "high": high}
    return {name: None if np.isnan(number) else float(number) for name, number in numbers.items()}
