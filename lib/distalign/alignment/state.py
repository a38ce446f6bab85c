"""What a training run carries from one iteration to the next, on disk and off: adapter, optimiser, average, log."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from distalign.alignment.half import LossScale
from distalign.config.fingerprint import fingerprint
from distalign.diffusion.adapters import Adapter, MovingAverage
from distalign.store.checkpoint import load_checkpoint, save_checkpoint
from distalign.store.parquet import TRAIN_LOG, write_table
from distalign.store.stages import STAGES

log = logging.getLogger(__name__)
Key = tuple[str, str | None, str]  # phase, classifier, metric


@dataclass
class TrainLog:
    """Measurements in long form: (iteration, (phase, classifier, metric), value)."""

    rows: list[tuple[int, Key, float]] = field(default_factory=list)

    def add(self, iteration: int, phase: str, metrics: Mapping[str, float], classifier: str | None = None) -> None:
        """Append one row per metric."""
        self.rows += [(iteration, (phase, classifier, metric), float(value)) for metric, value in metrics.items()]

    def pack(self) -> tuple[Tensor, list[Key]]:
        """As numbers (rows, 3) and the keys their second column counts, for a checkpoint."""
        keys = list(dict.fromkeys(key for _, key, _ in self.rows))
        numbers = {key: i for i, key in enumerate(keys)}
        packed = [[iteration, numbers[key], value] for iteration, key, value in self.rows]
        return torch.tensor(packed, dtype=torch.float64).view(-1, 3), keys

    @classmethod
    def unpack(cls, values: Tensor, keys: list[Any]) -> "TrainLog":
        """The inverse of `pack`."""
        known: list[Key] = [tuple(key) for key in keys]
        return cls([(int(iteration), known[int(key)], value) for iteration, key, value in values.tolist()])

    def write(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Write `train_log.parquet`."""
        columns = {
            "iteration": [iteration for iteration, _, _ in self.rows],
            "phase": [key[0] for _, key, _ in self.rows],
            "classifier": [key[1] for _, key, _ in self.rows],
            "metric": [key[2] for _, key, _ in self.rows],
            "value": [value for _, _, value in self.rows],
        }
        write_table(path, columns, TRAIN_LOG, provenance)


@dataclass
class TrainState:
    """Everything that changes during training.

    There is no random state: whatever is drawn in an iteration, in whichever process, comes from generators seeded by
    the run's seed and the iteration's number. So resuming needs this alone, and it is the same in all processes.
    """

    adapter: Adapter
    average: MovingAverage
    optimizer: AdamW
    iteration: int = 0  # the next one
    skipped: int = 0  # updates left out in a row because a gradient was not finite
    log: TrainLog = field(default_factory=TrainLog)
    scale: LossScale = field(default_factory=LossScale)

    def save(self, directory: Path, spec: Mapping[str, Any]) -> None:
        """Write a checkpoint of the run `spec` describes."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.adapter.parameters.items():
            tensors[f"parameter/{name}"] = parameter
            tensors[f"average/{name}"] = self.average.shadow[name]
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{key}/{name}"] = value
        tensors["log"], keys = self.log.pack()
        meta = {
            "fingerprint": fingerprint(spec),
            "spec": dict(spec),
            "stage_version": STAGES["finetune"],
            "iteration": self.iteration,
            "skipped": self.skipped,
            "average_updates": self.average.updates,
            "log_keys": keys,
            **self.scale.stored(),
        }
        save_checkpoint(directory, tensors, meta)

    @torch.no_grad()
    def load(self, directory: Path, spec: Mapping[str, Any]) -> bool:
        """Take up the newest checkpoint of this run, made by code that does the same; False if there is none."""
        loaded = load_checkpoint(directory, fingerprint(spec), spec)
        if loaded is None:
            return False
        tensors, meta = loaded
        version = meta.get("stage_version", STAGES["finetune"])
        if version != STAGES["finetune"]:
            now = STAGES["finetune"]
            log.warning("%s: by version %s of finetuning, now %s; training starts anew", directory, version, now)
            return False
        for name, parameter in self.adapter.parameters.items():
            parameter.copy_(tensors[f"parameter/{name}"])
            self.average.shadow[name].copy_(tensors[f"average/{name}"])
            stored = {key: tensors.get(f"optimizer/{key}/{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
            if stored["step"] is not None:
                self.optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(parameter.device)
                    for key, value in stored.items()
                    if value is not None
                }
        self.average.updates = meta["average_updates"]
        self.iteration = meta["iteration"]
        self.skipped = meta["skipped"]
        self.scale.restore(meta)
        self.log = TrainLog.unpack(tensors["log"], meta["log_keys"])
        return True
