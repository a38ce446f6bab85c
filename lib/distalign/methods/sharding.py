"""Images of an evaluation from several processes, one per GPU, in the same file as from one.

Each process makes a part of whole micro-batches and leaves it in a folder beside the output; the parts are then
written in order. What is computed together, and every byte of the file, is as without them.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from distalign.alignment.distributed import end_with_parent
from distalign.config.processes import too_many
from distalign.diffusion.images import (
    Cost,
    Effort,
    generate_images,
    images_writer,
    make_images,
    pieces,
    total_cost,
)
from distalign.errors import UserError, exhausted
from distalign.methods.loading import load_run
from distalign.secrets import redact
from distalign.store.files import atomic_write_json, read_json
from distalign.store.parquet import IMAGES, to_table
from distalign.workflow import device, log_to, use_threads

log = logging.getLogger(__name__)
WORKER = "distalign.methods.sharding"
WORK_FILE = "work.json"
POLL_SECONDS = 0.2


def generate(
    processes: int,
    spec: Mapping[str, Any],
    prompts: Path,
    inputs: Mapping[str, Path],
    output: Path,
    threads: int = 1,
    worker: str = WORKER,
) -> Cost:
    """Generate the images of `spec` (`Study.image_spec`) in this process or in several, as `generate_images` does.

    Args:
        processes: How many; not more than there are pieces (`images.pieces`) are started.
        spec: What `Study.image_spec` says.
        prompts: The prompt set.
        inputs: As `load_run` takes them.
        output: Where to write.
        threads: Of all processes together.
        worker: The module each process runs.

    Raises:
        UserError: more processes than GPUs, what a process stopped on, unreadable prompts, or a model or adapter that
            cannot be loaded.
        RuntimeError: a process stopped on a defect; its traceback.
    """
    if problem := too_many(processes, len(_gpus()), "generate_images"):
        raise UserError(problem)
    parts = min(processes, len(pieces(spec, prompts)))
    if parts <= 1:
        return generate_images(spec, prompts, inputs, lambda: load_run(spec, prompts, inputs, device()), output)
    with _folder(output) as folder:
        work = {"spec": spec, "prompts": prompts, "inputs": inputs, "parts": parts, "threads": max(1, threads // parts)}
        (folder / WORK_FILE).write_text(json.dumps(work, default=str))
        _run(folder, parts, worker)
        with images_writer(spec, prompts, inputs, output) as writer:
            for part in range(parts):
                for rows in _read(folder / f"{part}.arrow"):
                    writer.write(rows)
        return total_cost(spec, [Effort(**read_json(folder / f"{part}.json")) for part in range(parts)])


@contextmanager
def _folder(output: Path) -> Iterator[Path]:
    """An empty folder beside the output, on the disk that will take it; gone at the end."""
    folder = output.with_name(f".{output.name}.parts")
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, parts: int, worker: str) -> None:
    """Run all parts; the first that fails ends the others."""
    gpus = _gpus()
    running: dict[int, subprocess.Popen[bytes]] = {}
    try:
        for part in range(parts):
            own = {"CUDA_VISIBLE_DEVICES": gpus[part]} if gpus else {}
            command = [sys.executable, "-m", worker, str(folder), str(part)]
            running[part] = subprocess.Popen(command, env=os.environ | own, preexec_fn=end_with_parent)
        while running:
            time.sleep(POLL_SECONDS)
            for part, process in list(running.items()):
                if process.poll() is not None:
                    del running[part]
                    _check(folder, part, parts, process.returncode)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _gpus() -> Sequence[str]:
    """The GPUs this job was given, as CUDA_VISIBLE_DEVICES names them; none on a machine without."""
    found = torch.cuda.device_count()  # of names that stand for no GPU, as -1, torch counts none
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[:found] if given else [str(number) for number in range(found)]


def _check(folder: Path, part: int, parts: int, status: int) -> None:
    if status == 0:
        log.info("part %d of %d is complete", part + 1, parts)
        return
    failure = folder / f"{part}.failure.json"
    if failure.is_file():
        said = read_json(failure)
        raise (RuntimeError if said["defect"] else UserError)(said["message"])
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    raise UserError(
        f"process {part + 1} of {parts} that generate images ended with {how}. If memory ran out (SIGKILL), give the "
        "job more: mem_mb in set-resources of the profile; else see the messages above, and run again."
    )


def _read(path: Path) -> Iterator[pa.Table]:
    """The rows of a part, micro-batch by micro-batch."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
        for number in range(file.num_record_batches):
            yield pa.Table.from_batches([file.get_batch(number)])


def make_part(folder: Path, part: int) -> None:
    """Make one part of the work that stands in `folder`, and leave its rows and effort there."""
    work = read_json(folder / WORK_FILE)
    spec, prompts = work["spec"], Path(work["prompts"])
    use_threads(work["threads"])
    pipeline, intervention = load_run(
        spec, prompts, {name: Path(path) for name, path in work["inputs"].items()}, device()
    )
    with pa.OSFile(str(folder / f"{part}.arrow"), "wb") as sink, pa.ipc.new_file(sink, IMAGES) as writer:

        def write(rows: Mapping[str, Any]) -> None:
            writer.write_table(to_table(rows, IMAGES))

        effort = make_images(spec, prompts, pipeline, intervention, write, part, work["parts"])
    atomic_write_json(folder / f"{part}.json", asdict(effort))


def main(folder: Path, part: int) -> int:
    """Make a part in a process of its own and return its exit status; why it failed is left in the folder."""
    log_to(None)
    logging.getLogger("distalign").setLevel(logging.INFO if part == 0 else logging.WARNING)
    try:
        make_part(folder, part)
    except Exception as error:
        message = str(error) if isinstance(error, UserError) else exhausted(error)
        said = {"message": redact(message or traceback.format_exc()), "defect": message is None}
        atomic_write_json(folder / f"{part}.failure.json", said)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
