"""Images from several processes: the same file as from one, and a process that fails fails the job."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from distalign.diffusion.adapters import attach_adapter, save_adapter
from distalign.diffusion.images import Cost
from distalign.diffusion.pipeline import load_pipeline
from distalign.errors import UserError
from distalign.methods.fitting import fit, make_world, save_method
from distalign.methods.sharding import _gpus, generate
from distalign.store.parquet import IMAGES, read_table
from helpers.looking import reader

from .conftest import UNIFORM, settings_of

SPEC: dict[str, Any] = {
    "seed": 3,
    "split": "test",
    "images_per_prompt": 3,
    "sampler_steps": 2,
    "guidance": 3.0,
    "text_padding": "longest",
    "precision": "float32",
    "micro_batch": {"sample": 2, "gradient": 1},
}
ALIGN = {"gender": UNIFORM["gender"]}


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.json"
    splits = {"train": ["cook"], "validation": ["judge"], "test": ["pilot", "clerk", "gas plant operator"]}
    path.write_text(json.dumps({"template": "a {concept}", "splits": splits}))
    return path


@pytest.fixture(autouse=True)
def helpers_for_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]))
    monkeypatch.setattr("distalign.methods.fitting.load_reader", reader)


def finetuned(backbone: Path, folder: Path) -> Path:
    pipeline = load_pipeline(backbone)
    adapter = attach_adapter(pipeline, ["text_encoder"], rank=2, prefix_tokens=1, seed=1)
    for parameter in adapter.parameters.values():
        parameter.data += 0.3
    save_adapter(adapter, folder)
    return folder


def fitted(method: str, backbone: Path, folder: Path, **settings: Any) -> Path:
    world = make_world(SPEC | {"method": method, "align": ALIGN}, backbone, load_pipeline(backbone).device)
    complete = settings_of(method, **settings)
    save_method(folder, {"method": method, "align": ALIGN}, complete, fit(method, world, complete, ALIGN))
    return folder


def made(
    processes: int, spec: dict[str, Any], prompts: Path, inputs: dict[str, Path], tmp_path: Path
) -> tuple[bytes, Cost]:
    output = tmp_path / f"{processes}.parquet"
    cost = generate(processes, spec, prompts, inputs, output, 1, worker="helpers.looking")
    assert not output.with_name(f".{output.name}.parts").exists()
    return output.read_bytes(), cost


def test_the_number_of_processes_changes_no_byte(tiny_backbone: Path, prompts: Path, tmp_path: Path) -> None:
    inputs = {"backbone": tiny_backbone, "adapter": finetuned(tiny_backbone, tmp_path / "adapter")}
    spec = SPEC | {"adapter": {"method": "adjusted_dft"}}
    one, two, three = (made(processes, spec, prompts, inputs, tmp_path) for processes in (1, 2, 3))
    assert one[0] == two[0] == three[0]
    assert len(read_table(tmp_path / "3.parquet", IMAGES)) == 9
    assert {(cost.images, cost.evaluations) for _, cost in (one, two, three)} == {(9, 1.0)}


@pytest.mark.parametrize("method", ["ethical_intervention", pytest.param("doodl", marks=pytest.mark.methods)])
def test_nor_for_a_method_that_assigns_or_looks(
    tiny_backbone: Path, prompts: Path, tmp_path: Path, method: str
) -> None:
    settings = {"steps": 1} if method == "doodl" else {}
    inputs = {"backbone": tiny_backbone, "adapter": fitted(method, tiny_backbone, tmp_path / "adapter", **settings)}
    for name in ("classifier", "clip", "dino", "face_embedding"):
        (tmp_path / name).mkdir()
        inputs |= {name: tmp_path / name} if method == "doodl" else {}
    spec = SPEC | {"adapter": {"method": method}, "align": ALIGN}
    one, three = (made(processes, spec, prompts, inputs, tmp_path) for processes in (1, 3))
    assert one[0] == three[0]
    assert one[1].evaluations == three[1].evaluations


def test_what_a_process_stops_on_is_the_message_of_all(tiny_backbone: Path, prompts: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    spec = SPEC | {"adapter": {"method": "uce"}}
    with pytest.raises(UserError, match="no fitted method"):
        made(2, spec, prompts, {"backbone": tiny_backbone, "adapter": tmp_path / "adapter"}, tmp_path)
    assert not (tmp_path / "2.parquet").exists()
    assert not (tmp_path / ".2.parquet.parts").exists()


def test_more_processes_than_gpus_are_refused_before_any_starts(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=r"asks for 4 GPUs, but this machine shows it 2 .* of rule generate_images"):
        made(4, SPEC, prompts, {}, tmp_path)
    assert not (tmp_path / ".4.parquet.parts").exists()


@pytest.mark.parametrize(
    ("visible", "found", "expected"),
    [
        (None, 2, ["0", "1"]),
        ("3,GPU-5f", 2, ["3", "GPU-5f"]),
        ("1,-1", 1, ["1"]),
        ("-1", 0, []),  # and what SLURM sets for a job without
        ("NoDevFiles", 0, []),
        ("", 0, []),
        (None, 0, []),
    ],
)
def test_each_process_has_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, found: int, expected: list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    assert _gpus() == expected


def test_a_process_that_dies_fails_the_job(
    tiny_backbone: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KILLED", "1")
    with pytest.raises(UserError, match=r"process 2 of 2 .*SIGKILL"):
        made(2, SPEC, prompts, {"backbone": tiny_backbone}, tmp_path)
    assert not (tmp_path / "2.parquet").exists()
    assert not (tmp_path / ".2.parquet.parts").exists()


JOB = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from distalign.methods.sharding import generate
from distalign.workflow import job
folder, backbone, spec = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
with job(SimpleNamespace(log=[str(folder / "job.log")], threads=1, rule="generate_images")):
    generate(2, spec, folder / "prompts.json", {"backbone": backbone}, folder / "images.parquet")
"""


@pytest.mark.faults
@pytest.mark.injects("SIGTERM or SIGKILL of a generation in two processes")
@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_job_leaves_nothing_torn_and_no_process(
    tiny_backbone: Path, prompts: Path, tmp_path: Path, number: signal.Signals
) -> None:
    spec = SPEC | {"images_per_prompt": 10_000}
    command = [sys.executable, "-c", JOB, str(tmp_path), str(tiny_backbone), json.dumps(spec)]
    parts = tmp_path / ".images.parquet.parts"
    with subprocess.Popen(command) as process:
        wait(lambda: all((parts / f"{part}.arrow").exists() for part in range(2)))
        workers = [int(pid) for pid in children(process.pid)]
        assert len(workers) == 2
        process.send_signal(number)
    wait(lambda: not any(alive(worker) for worker in workers))
    assert not (tmp_path / "images.parquet").exists()
    assert parts.exists() == (number == signal.SIGKILL)  # the next attempt removes it


def wait(done: Any, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
