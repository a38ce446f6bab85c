"""What generating cost: the U-Net's evaluations and seconds per image."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distalign.config.metrics import INFERENCE_COST, INFERENCE_SECONDS
from distalign.diffusion.images import Cost
from distalign.measure.bias import RunKey
from distalign.store.parquet import RESULTS, to_table, write_table
from distalign.store.provenance import collect


def write_cost(cost: Cost, key: RunKey, spec: Mapping[str, Any], output: Path) -> None:
    """Write the cost of an evaluation of a run as two rows of schema RESULTS; n counts images."""
    rows = [
        {**asdict(key), "metric": metric, "value": value, "n": cost.images}
        for metric, value in ((INFERENCE_COST, cost.evaluations), (INFERENCE_SECONDS, cost.seconds))
    ]
    table = to_table({name: [row.get(name) for row in rows] for name in RESULTS.names}, RESULTS)
    write_table(output, table, RESULTS, collect("generate", spec, seeds={"run": key.seed}))
