"""Whole finetunings of a tiny model on a GPU; their like on the CPU are in tests/unit/alignment."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from distalign.alignment.launch import launch
from distalign.alignment.trainer import FinetunePaths, Judges, finetune
from helpers.finetuning import detect, tiny_judges, tiny_paths, tiny_plan_spec, tiny_spec

TESTS = Path(__file__).parents[1]


def adapter(paths: FinetunePaths) -> dict[str, Tensor]:
    return load_file(paths.run / "adapter" / "pytorch_lora_weights.safetensors")


def losses(paths: FinetunePaths) -> list[float]:
    rows = pq.read_table(paths.run / "train_log.parquet").to_pylist()
    return [row["value"] for row in rows if row["metric"].startswith("loss/")]


def distance(one: FinetunePaths, other: FinetunePaths) -> float:
    """Of two adapters."""
    wanted = adapter(other)
    return float(torch.stack([(tensor - wanted[name]).norm() for name, tensor in adapter(one).items()]).norm())


def judges_that(act: Callable[[int], None]) -> Callable[..., Judges]:
    """Tiny judges whose detector calls `act` with the number of the call first."""
    calls = count()

    def load(spec: Any, paths: Any, device: torch.device) -> Judges:
        judges = tiny_judges(spec, paths, device)

        def counting(images: Tensor) -> Any:
            act(next(calls))
            return detect(images)

        return replace(judges, reader=replace(judges.reader, detect=counting))

    return load


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_run_trains_in_every_precision(
    tiny_backbone: Path, tmp_path: Path, gpu: torch.device, precision: str
) -> None:
    paths = tiny_paths(tiny_backbone, tmp_path)
    finetune(tiny_spec(plan=tiny_plan_spec(precision=precision)), paths, 1, tiny_judges)
    tensors = adapter(paths)
    assert all(tensor.isfinite().all() and tensor.abs().sum() > 0 for tensor in tensors.values())
    assert all(torch.isfinite(torch.tensor(losses(paths))))


def test_stopped_it_goes_on_to_the_same_numbers(tiny_backbone: Path, tmp_path: Path, gpu: torch.device) -> None:
    """The backward pass of face crops adds in any order on a GPU: two whole runs say how much that is."""
    whole, again, stopped = (tiny_paths(tiny_backbone, tmp_path / name) for name in ("whole", "again", "stopped"))
    spec = tiny_spec(learning_rate=1e-3)
    for paths in (whole, again):
        finetune(spec, paths, 1, tiny_judges)
    with pytest.raises(SystemExit):
        finetune(spec, stopped, 1, judges_that(lambda k: os.kill(os.getpid(), signal.SIGTERM) if k == 5 else None))
    assert not (stopped.run / "adapter").exists()
    finetune(spec, stopped, 1, tiny_judges)
    assert distance(stopped, whole) <= 10 * distance(again, whole)  # if they are equal, so is this one
    assert losses(stopped) == pytest.approx(losses(whole), rel=1e-3, abs=1e-6)


def test_two_processes_make_the_update_of_one(
    tiny_backbone: Path, tmp_path: Path, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one GPU both are on it, and gloo takes the place of NCCL."""
    spec = tiny_spec(iterations=2, learning_rate=5e-5)
    one, two = (tiny_paths(tiny_backbone, tmp_path / name) for name in ("one", "two"))
    finetune(spec, one, 1, tiny_judges)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), *sys.path]))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # here, not in the workers: one would be refused
    launch(2, spec, two, 2, worker="helpers.shared_gpu")
    ours, theirs = (
        torch.cat([w.flatten() for n, w in sorted(adapter(paths).items()) if "lora_B" in n]) for paths in (two, one)
    )
    assert theirs.norm() > 0 and (ours - theirs).norm() <= 1e-3 * theirs.norm()
    assert losses(two) == pytest.approx(losses(one), rel=1e-3, abs=1e-6)


def test_memory_does_not_grow(tiny_backbone: Path, tmp_path: Path, gpu: torch.device) -> None:
    held: list[int] = []
    spec = tiny_spec(iterations=200, checkpoint_every=50)
    del spec["validate_every"]
    paths = tiny_paths(tiny_backbone, tmp_path)
    finetune(spec, paths, 1, judges_that(lambda k: held.append(torch.cuda.memory_allocated())))
    tenth = len(held) // 10
    assert max(held[-tenth:]) <= max(held[tenth : 2 * tenth])
