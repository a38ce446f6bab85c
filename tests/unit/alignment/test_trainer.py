import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from distalign.alignment import torchrun
from distalign.alignment.distributed import Group
from distalign.alignment.launch import launch
from distalign.alignment.memory import graph_bytes
from distalign.alignment.trainer import FinetunePaths, Judges, finetune, learning_rate
from distalign.config.processes import too_many, uneven
from distalign.diffusion.pipeline import load_pipeline
from distalign.errors import UserError
from distalign.store.files import atomic_write_json
from distalign.store.stages import STAGES
from helpers import finetuning
from helpers.finetuning import detect, tiny_judges, tiny_paths, tiny_spec

TESTS = Path(__file__).parents[2]


def weights(paths: FinetunePaths) -> bytes:
    return (paths.run / "adapter" / "pytorch_lora_weights.safetensors").read_bytes()


def log_without_times(paths: FinetunePaths) -> list[dict[str, Any]]:
    rows = pq.read_table(paths.run / "train_log.parquet").to_pylist()
    return [row for row in rows if row["metric"] != "seconds"]


def judges_that(act: Callable[[int], None]) -> Callable[..., Judges]:
    """Tiny judges whose detector calls `act` with the number of the call first."""
    calls = iter(range(1000))

    def load(spec: Any, paths: Any, device: Any) -> Judges:
        judges = tiny_judges(spec, paths, device)

        def counting(images: torch.Tensor) -> Any:
            act(next(calls))
            return detect(images)

        return Judges(
            type(judges.reader)(counting, judges.reader.classifier, judges.reader.embed, judges.reader.encoders),
            judges.evaluation,
            judges.bank,
        )

    return load


@pytest.fixture(scope="module")
def whole(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetunePaths:
    """A run from beginning to end."""
    paths = tiny_paths(tiny_backbone, tmp_path_factory.mktemp("whole"))
    finetune(tiny_spec(), paths, 1, tiny_judges)
    return paths


def test_a_run_leaves_what_it_should(whole: FinetunePaths, tiny_backbone: Path) -> None:
    assert {path.name for path in whole.run.iterdir()} == {
        "adapter", "train_log.parquet", "spec.json", "provenance.json", "state",
    }  # fmt: skip
    values = load_file(whole.run / "adapter" / "pytorch_lora_weights.safetensors")
    assert any(name.startswith("unet.") for name in values)
    assert all(value.isfinite().all() for value in values.values())
    assert all(value.abs().sum() > 0 for value in values.values())
    log = pq.read_table(whole.run / "train_log.parquet").to_pandas()
    train = log[log["phase"] == "train"]
    assert set(train["metric"]) == {
        "loss/align", "loss/image", "loss/face", "face_found", "gradient_norm", "seconds", "bias/gender", "bias/race",
    }  # fmt: skip
    assert sorted(set(train["iteration"])) == [0, 1, 2, 3, 4]
    validation = log[log["phase"] == "validation"]
    assert sorted(set(validation["iteration"])) == [0, 4, 5]
    assert set(validation["classifier"].dropna()) == {"loss", "evaluation"}
    assert "target_distance/race" in set(validation["metric"])


@pytest.mark.faults
@pytest.mark.injects("SIGTERM or SIGINT inside an iteration")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_it_saves_and_goes_on_to_the_same_numbers(
    tiny_backbone: Path, tmp_path: Path, whole: FinetunePaths, number: signal.Signals
) -> None:
    paths = tiny_paths(tiny_backbone, tmp_path)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        finetune(tiny_spec(), paths, 1, judges_that(lambda call: os.kill(os.getpid(), number) if call == 5 else None))
    assert stopped.value.code == 128 + number
    assert signal.getsignal(number) == before
    assert not (paths.run / "adapter").exists()
    finetune(tiny_spec(), paths, 1, tiny_judges)
    assert weights(paths) == weights(whole)
    assert log_without_times(paths) == log_without_times(whole)


@pytest.mark.faults
@pytest.mark.injects("SIGKILL after a checkpoint")
def test_killed_it_goes_on_from_the_last_checkpoint_to_the_same_numbers(
    tiny_backbone: Path, tmp_path: Path, whole: FinetunePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = tiny_paths(tiny_backbone, tmp_path)
    work = tmp_path / "work.json"
    names = {name: str(path) for name, path in vars(paths).items()}
    atomic_write_json(work, {"spec": tiny_spec(), "paths": names, "threads": 1})
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), *sys.path]))
    with subprocess.Popen([sys.executable, finetuning.__file__, str(work)]) as process:
        while not list((paths.run / "state").glob("*.json")) and process.poll() is None:
            time.sleep(0.02)
        process.kill()
    assert not (paths.run / "adapter").exists()
    finetune(tiny_spec(), paths, 1, tiny_judges)
    assert weights(paths) == weights(whole)


def test_two_processes_make_the_update_of_one(
    tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The paper's learning rate: AdamW turns the rounding of tiny gradients into a part of it.
    spec = tiny_spec(iterations=2, learning_rate=5e-5)
    one, two = (tiny_paths(tiny_backbone, tmp_path / name) for name in ("one", "two"))
    finetune(spec, one, 1, tiny_judges)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), *sys.path]))
    log = tmp_path / "finetune.log"
    log.write_text("so far\n")
    launch(2, spec, two, 2, log, worker="helpers.finetuning")
    assert log.read_text().startswith("so far\n")
    assert len(re.findall(r"iteration 2/2  loss/align", log.read_text())) == 1  # the first process speaks for all
    ours, theirs = (load_file(paths.run / "adapter" / "pytorch_lora_weights.safetensors") for paths in (two, one))
    assert max((ours[name] - theirs[name]).abs().max().item() for name in theirs) <= 1e-6
    updates = [torch.cat([w.flatten() for n, w in x.items() if "lora_B" in n]) for x in (ours, theirs)]  # from zero
    assert updates[1].norm() > 0 and (updates[0] - updates[1]).norm() <= 1e-3 * updates[1].norm()
    rows = [[row["value"] for row in log_without_times(paths)] for paths in (two, one)]
    assert rows[0] == pytest.approx(rows[1], rel=1e-3, abs=1e-6)


def test_a_process_that_fails_fails_the_finetuning_with_its_message(
    tiny_backbone: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, log = tiny_paths(tiny_backbone, tmp_path / "two"), tmp_path / "finetune.log"
    paths.prompts[0].write_text("{}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), *sys.path]))
    with pytest.raises(UserError, match="finetuning in 2 processes stopped with status 1"):
        launch(2, tiny_spec(), paths, 2, log, worker="helpers.finetuning")
    for text in (log.read_text(), capfd.readouterr().err):
        assert str(paths.prompts[0]) in text
        assert "of this finetuning ended first, with status 1" in text
        assert "Traceback" not in text


def test_a_process_that_was_killed_may_have_lacked_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(arguments: list[str]) -> None:
        raise ChildFailedError("worker", {1: ProcessFailure(1, 4711, -signal.SIGKILL, "none.json")})

    monkeypatch.setattr(torchrun, "torchrun", killed)
    monkeypatch.setattr(torchrun, "log_to", lambda file: None)
    atomic_write_json(tmp_path / "work.json", {})
    assert torchrun.main([str(tmp_path / "work.json")]) == 1
    assert "process 1 of this finetuning ended first, with signal SIGKILL; if memory ran out" in caplog.text
    assert "mem_mb" in caplog.text


def test_other_settings_start_anew(
    tiny_backbone: Path, tmp_path: Path, whole: FinetunePaths, caplog: pytest.LogCaptureFixture
) -> None:
    paths = tiny_paths(tiny_backbone, tmp_path)
    finetune(tiny_spec(iterations=2, learning_rate=0.5), paths, 1, tiny_judges)
    finetune(tiny_spec(), paths, 1, tiny_judges)
    assert "learning_rate" in caplog.text
    assert weights(paths) == weights(whole)


def test_a_state_of_other_code_starts_anew(
    tiny_backbone: Path,
    tmp_path: Path,
    whole: FinetunePaths,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = tiny_paths(tiny_backbone, tmp_path)
    monkeypatch.setitem(STAGES, "finetune", STAGES["finetune"] - 1)
    with pytest.raises(SystemExit):
        finetune(tiny_spec(), paths, 1, judges_that(lambda call: os.kill(os.getpid(), 15) if call == 5 else None))
    monkeypatch.undo()
    finetune(tiny_spec(), paths, 1, tiny_judges)
    assert f"of finetuning, now {STAGES['finetune']}; training starts anew" in caplog.text
    assert "resuming" not in caplog.text
    assert weights(paths) == weights(whole)


def test_a_decaying_learning_rate(tiny_backbone: Path, tmp_path: Path) -> None:
    decaying = {"learning_rate": 0.5, "learning_rate_decay": "cosine", "iterations": 4}
    assert [learning_rate(decaying, k) for k in range(4)] == pytest.approx([0.5, 0.4267767, 0.25, 0.0732233])
    assert learning_rate({"learning_rate": 0.5, "iterations": 4}, 3) == 0.5
    updated = []
    for name, decay in (("constant", {}), ("cosine", {"learning_rate_decay": "cosine"})):
        for iterations in (1, 2):
            paths = tiny_paths(tiny_backbone, tmp_path / f"{name}{iterations}")
            finetune(tiny_spec(iterations=iterations, **decay), paths, 1, tiny_judges)
            updated.append(weights(paths))
    assert updated[0] == updated[2]  # the first update is at the full rate
    assert updated[1] != updated[3]


def test_long_gradients_are_shortened(tiny_backbone: Path, tmp_path: Path) -> None:
    made = {}
    for limit in (None, 1e-9, 1e9):
        paths = tiny_paths(tiny_backbone, tmp_path / str(limit))
        settings = {} if limit is None else {"max_gradient_norm": limit}
        finetune(tiny_spec(iterations=2, **settings), paths, 1, tiny_judges)
        made[limit] = weights(paths)
    assert made[1e9] == made[None] != made[1e-9]


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient": {"weights": "exact", "damping": 0.5, "keep_graph": True}},
        {"gradient": {"weights": "released", "steps": 2, "keep_graph": "auto"}},
        {"gradient": {"weights": "exact", "truncate": "random", "keep_graph": False}},
        {"gradient": {"weights": "unstandardised", "steps": 2, "choice": "even", "keep_graph": "auto"}},
        {"train": ["prompt_prefix"], "prefix_tokens": 2},
        {"train": ["prompt_prefix"], "prefix_tokens": 2, "targets": "batch_mean"},
        {"align": {"gender": {"female": 0.3, "male": 0.7}}},
    ],
    ids=str,
)
def test_every_kind_of_run(tiny_backbone: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    paths = tiny_paths(tiny_backbone, tmp_path)
    spec = tiny_spec(iterations=1, **changes)
    del spec["validate_every"]
    finetune(spec, paths, 1, tiny_judges)
    assert any((paths.run / "adapter").iterdir())


def test_further_images_of_the_last_step_are_averaged(tiny_backbone: Path, tmp_path: Path) -> None:
    """The first update's gradient, with its length: twice as many further images, kept graphs and smaller batches."""
    norms = {}
    for name, options in {
        "one": {"last": 1},
        "kept": {"last": 1, "renoise": 2, "keep_graph": True},
        "flat": {"last": 1, "renoise": 2, "keep_graph": False},
    }.items():
        paths = tiny_paths(tiny_backbone, tmp_path / name)
        spec = tiny_spec(iterations=1, gradient={"weights": "exact", "keep_graph": False} | options)
        del spec["validate_every"]
        finetune(spec, paths, 1, tiny_judges)
        (norms[name],) = (row["value"] for row in log_without_times(paths) if row["metric"] == "gradient_norm")
    assert norms["kept"] == pytest.approx(norms["flat"], rel=1e-4)
    assert norms["flat"] != pytest.approx(norms["one"], rel=1e-3)
    assert 0.3 < norms["flat"] / norms["one"] < 3


def test_a_gradient_that_is_not_finite_changes_nothing(tiny_backbone: Path, tmp_path: Path) -> None:
    paths = tiny_paths(tiny_backbone, tmp_path)

    def broken(spec: Any, paths: Any, device: Any) -> Judges:
        judges = tiny_judges(spec, paths, device)
        judges.reader.encoders["clip"].matrix.fill_(torch.nan)
        return judges

    spec = tiny_spec(iterations=2)
    del spec["validate_every"]
    finetune(spec, paths, 1, broken)
    values = load_file(paths.run / "adapter" / "pytorch_lora_weights.safetensors")
    assert all(value.abs().sum() == 0 for name, value in values.items() if "lora_B" in name or ".up." in name)


def test_the_end_of_another_process_is_no_defect_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_reduce(values: torch.Tensor) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    message = "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4242"
    with pytest.raises(UserError, match="another process of this run has ended; its own message says why"):
        Group(0, 2).any(True)
    message = "tensors of different sizes"
    with pytest.raises(RuntimeError, match="different sizes"):
        Group(0, 2).any(True)


def test_images_that_cannot_be_shared_are_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"images_per_step: 24 images .* 5 processes; take 20 or 25 images, or 4 or 6 proc"
    ):
        Group(0, 5).share(24)
    assert "(gpu of the preset's job, or of rule finetune in set-resources)" in str(uneven(24, 9))
    assert [uneven(24, n) for n in (1, 2, 4, 8)] == [None] * 4
    with pytest.raises(UserError, match="take 3 images"):
        launch(3, {"images_per_step": 2}, None, 1)
    assert [Group(rank, 3).share(24) for rank in range(3)] == [slice(0, 8), slice(8, 16), slice(16, 24)]


def test_more_processes_than_gpus_are_refused_before_any_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=r"gpu: the job asks for 4 GPUs, but this machine shows it 2 "):
        launch(4, {"images_per_step": 24}, None, 1)
    assert [too_many(2, gpus, "finetune") for gpus in (0, 2, 8)] == [None] * 3  # 0: on the CPU


def test_graph_memory_is_counted(tiny_backbone: Path) -> None:
    pipeline = load_pipeline(tiny_backbone)
    single = graph_bytes(pipeline, "a doctor", "max_length", 1.0)
    guided = graph_bytes(pipeline, "a doctor", "max_length", 3.0)
    assert 10_000 < single < guided < 2.2 * single
