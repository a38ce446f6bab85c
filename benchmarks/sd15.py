"""Speed and memory of Stable Diffusion 1.5 on this machine's card: sampling, and whole iterations of finetuning.

The models have the structure of those of `presets/sd15.yaml` and random weights: nothing is downloaded. An iteration is
that of the run `ours_gender`, with 21 steps: N = 24 images rendered, looked at by detector, classifier and encoders,
the gradient through every step, and the update, by `distalign.alignment.trainer.finetune` itself. Beside it runs the
same iteration in the structure of the paper's released code. Each row counts the floating-point operations it executes
with torch's counter and divides them by what a large matrix product reaches here.

    python benchmarks/sd15.py                      # on this machine's GPU
    python benchmarks/sd15.py --keep               # and into benchmarks/sd15_<card>.md
    python benchmarks/sd15.py --set micro_batch='{sample: 16, gradient: 8}'
    python benchmarks/sd15.py --reduced --device cpu   # whether it works: narrow models, numbers that mean nothing
"""

import argparse
import datetime
import gc
import math
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import random_world
import torch
import yaml
from released_structure import ReleasedStructure
from torch.utils.flop_counter import FlopCounterMode

from distalign.alignment.memory import FREE_SHARE, graph_bytes
from distalign.alignment.trainer import FinetunePaths, Judges, finetune
from distalign.config.files import read_yaml
from distalign.config.study import CONFIG_FILE, load_study
from distalign.diffusion.pipeline import load_generator
from distalign.diffusion.sampler import generate
from distalign.errors import exhausted

ROOT = Path(__file__).resolve().parents[1]
FULL = {"image_steps": 25, "images": 24, "steps": 21, "sampled": 32, "micro_batches": [8, 16, 32], "matmul": 8192}
REDUCED = {"image_steps": 4, "images": 2, "steps": 4, "sampled": 2, "micro_batches": [2], "matmul": 256}
ALL_STEPS, QUARTER, RELEASED = "adjusted", "adjusted, a quarter of the steps", "the released code's structure"
ESTIMATORS: dict[str, dict[str, Any]] = {
    ALL_STEPS: {"weights": "adjusted"},
    "with the factors of the released code": {"weights": "released"},
    "unstandardised": {"weights": "unstandardised"},
    "exact, damped by half": {"weights": "exact", "damping": 0.5},
    "exact": {"weights": "exact"},
    QUARTER: {"weights": "adjusted", "steps": None},
    "adjusted, kept graphs": {"weights": "adjusted", "keep_graph": True},
    "adjusted, a quarter of the steps, kept graphs": {"weights": "adjusted", "steps": None, "keep_graph": True},
}
GOALS = (  # what is asked of an NVIDIA H200, of which quantity, and whether more is better
    ("images per second, 25 steps", "images", 9.0, True),
    ("seconds per iteration, all steps", "all", 7.0, False),
    ("seconds per iteration, a quarter of the steps", "quarter", 3.5, False),
    ("times as fast as the released structure, all steps", "faster", 2.5, True),
    ("times as fast as the released structure, a quarter of the steps", "faster quarter", 4.0, True),
)


@dataclass
class Row:
    """What one way of doing it took.

    Attributes:
        seconds: of one iteration, or of one image; None where it could not be measured, `note` says why.
        flops: executed, for the same.
        peak: bytes at the highest, weights included; None where it cannot be read.
    """

    title: str
    seconds: float | None = None
    flops: int | None = None
    peak: int | None = None
    note: str = ""


@dataclass
class Bench:
    """Everything that is loaded once, and the settings rows change."""

    options: argparse.Namespace
    size: dict[str, Any]
    device: torch.device
    spec: dict[str, Any]
    paths: FinetunePaths
    judges: Judges
    rows: list[Row] = field(default_factory=list)

    def measure(self, title: str, run: Callable[[], Row]) -> Row:
        """Add a row; memory that does not suffice is a note in it, and the next row starts afresh."""
        print(f"{title} ...", file=sys.stderr, flush=True)
        note = ""
        try:
            row = run()
        except (RuntimeError, MemoryError) as error:  # CUDA's out of memory is a RuntimeError
            if exhausted(error) is None:
                raise
            note = "out of memory"
        if note:  # outside, where the error with its frames and their tensors is gone
            row = Row(title, note=note)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.rows.append(row)
        return row


def flops(call: Callable[[], Any]) -> int:
    """Floating-point operations of matrix products, convolutions and attention that a call executes, backward too."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operator that the counter does not know
    try:
        with FlopCounterMode(display=False) as counter:
            call()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())


@contextmanager
def peak_memory(device: torch.device, row: Row) -> Iterator[None]:
    """Note the most memory that is in use within the region."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        yield
        torch.cuda.synchronize()
        row.peak = torch.cuda.max_memory_allocated()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    except OSError:
        yield
        return
    yield
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    row.peak = int(match[1]) * 1024 if match else None


def matmul_peak(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Operations per second that a product of two square matrices reaches: the best of several."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = math.inf
    for _ in range(6):
        synchronise(device)
        started = time.perf_counter()
        for _ in range(10):
            a @ b
        synchronise(device)
        best = min(best, (time.perf_counter() - started) / 10)
    return 2 * side**3 / best


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def sampling(bench: Bench, micro_batch: int) -> Row:
    """Generation without gradient, to decoded images."""
    pipeline = load_generator(bench.paths.backbone, bench.spec["plan"], bench.device)
    count = max(bench.size["sampled"], micro_batch)

    def images(number: int) -> None:
        prompts = [random_world.PROMPT] * number
        generate(pipeline, prompts, range(number), bench.size["image_steps"], bench.spec["guidance"], micro_batch)

    row = Row(f"images, micro-batches of {micro_batch}")
    row.flops = flops(lambda: images(micro_batch)) // micro_batch
    images(micro_batch)
    with peak_memory(bench.device, row):
        started = time.perf_counter()
        images(count)
        synchronise(bench.device)
        row.seconds = (time.perf_counter() - started) / count
    return row


def iteration(bench: Bench, title: str, gradient: dict[str, Any]) -> Row:
    """Whole iterations by this library, one more than are counted."""
    row = Row(title)
    gradient = {"keep_graph": False, **gradient}
    if "steps" in gradient:
        gradient["steps"] = quarter(bench.size["steps"])
    if gradient["keep_graph"] and (missing := lacking(bench, gradient.get("steps") or bench.size["steps"])):
        row.note = missing
        return row
    spec = bench.spec | {"gradient": gradient}

    def train(iterations: int, **changes: Any) -> list[float]:
        with tempfile.TemporaryDirectory() as run:
            paths = replace(bench.paths, run=Path(run))
            finetune(
                spec | {"iterations": iterations} | changes, paths, torch.get_num_threads(), lambda *_: bench.judges
            )
            log = pq.read_table(paths.run / "train_log.parquet").to_pylist()
        return [entry["value"] for entry in log if entry["metric"] == "seconds"]

    if bench.device.type == "cuda":
        train(1)  # what is found by trying, is found now
    eager = {key: False for key in ("compile",) if key in spec}
    row.flops = flops(lambda: train(1, **eager))
    with peak_memory(bench.device, row):
        row.seconds = statistics.median(train(1 + bench.options.repeat)[1:])
    return row


def lacking(bench: Bench, steps: int) -> str:
    """Why the graphs of so many steps of all images cannot be kept; empty if they can."""
    pipeline = load_generator(bench.paths.backbone, bench.spec["plan"], bench.device)
    each = graph_bytes(pipeline, random_world.PROMPT, bench.spec["plan"]["text_padding"], bench.spec["guidance"])
    needed = each * steps * bench.size["images"]
    free = FREE_SHARE * torch.cuda.mem_get_info()[0] if bench.device.type == "cuda" else math.inf
    return f"graphs take {needed / 1e9:,.0f} GB" if needed > free else ""


def released(bench: Bench) -> Row:
    """The same iterations as the released code makes them."""
    row = Row(RELEASED)
    structure = ReleasedStructure(bench.spec, bench.paths, bench.judges, bench.device)
    row.flops = flops(lambda: structure.iterate(0))
    seconds = []
    with peak_memory(bench.device, row):
        for k in range(bench.options.repeat):
            synchronise(bench.device)
            started = time.perf_counter()
            structure.iterate(k)
            synchronise(bench.device)
            seconds.append(time.perf_counter() - started)
    row.seconds = statistics.median(seconds)
    return row


def quarter(steps: int) -> int:
    """A quarter of the steps."""
    return max(1, round(steps / 4))


def build(options: argparse.Namespace, folder: Path) -> Bench:
    """Random models below a folder, loaded; settings are those of the preset's run `ours_gender`."""
    device = torch.device(options.device)
    size = REDUCED if options.reduced else FULL
    study = load_study({**read_yaml(ROOT / CONFIG_FILE), "preset": "sd15"}, ROOT)
    spec = study.finetune_spec("ours_gender", 0)
    del spec["validate_every"]
    spec |= {"checkpoint_every": 10**6, "noise_period": 1}
    spec["plan"] |= {"iterations": 1, "precision": options.dtype}
    for part in (spec, spec["plan"]):
        part |= {"images_per_step": size["images"], "sampler_steps": [size["steps"]], **options.set}
    if options.reduced:
        spec["plan"] |= {"chip": {**spec["plan"]["chip"], "size": 32}}
    structure = random_world.reduced() if options.reduced else random_world.full()
    print("building random models ...", file=sys.stderr, flush=True)
    paths = random_world.build(folder, structure, spec, device)
    judges = random_world.judges_of(spec, paths, device)
    random_world.save_originals(spec, paths, judges, device)
    gc.collect()  # networks that were only written
    return Bench(options, size, device, spec, paths, judges)


def run(bench: Bench) -> str:
    """All rows, as Markdown."""
    peak = matmul_peak(bench.device, getattr(torch, bench.options.dtype), bench.size["matmul"])
    sampled = [
        bench.measure(f"images, micro-batches of {size}", lambda size=size: sampling(bench, size))
        for size in bench.size["micro_batches"]
    ]
    rows = {
        title: bench.measure(title, lambda title=title, it=it: iteration(bench, title, it))
        for title, it in ESTIMATORS.items()
    }
    rows[RELEASED] = bench.measure(RELEASED, lambda: released(bench))
    head = [
        heading(bench, peak),
        "",
        f"| images of {bench.size['image_steps']} steps | per second | peak GB | TFLOP | of the peak |",
    ]
    head += ["|---" * 5 + "|"]
    head += [image_line(row, peak) for row in sampled]
    head += ["", "| an iteration | seconds | peak GB | TFLOP | of the peak | times as fast as released |"]
    head += ["|---" * 6 + "|"]
    head += [iteration_line(row, rows[RELEASED], peak) for row in rows.values()]
    return "\n".join([*head, "", *goals(bench, sampled, rows)]) + "\n"


def heading(bench: Bench, peak: float) -> str:
    """Where, when and what."""
    now, size, batch = datetime.datetime.now(datetime.UTC), bench.size, bench.spec["micro_batch"]
    shown = f"sample {batch['sample']}, gradient {batch['gradient']}" if isinstance(batch, dict) else batch
    found = bench.paths.backbone.parent / "batch_sizes.json"
    if found.is_file():  # of sizes that are found by trying
        shown += f", found {found.read_text().strip()}"
    changed = "".join(f", {key}: {value}" for key, value in bench.options.set.items() if key != "micro_batch")
    reduced = ", REDUCED: numbers mean nothing" if bench.options.reduced else ""
    return (
        f"## {card(bench.device)}, {now:%d %B %Y}{reduced}\n\n"
        f"torch {torch.__version__}, Python {platform.python_version()}, {bench.options.dtype}; random weights, "
        f"{size['images']} images, {size['steps']} steps, a quarter is {quarter(size['steps'])}; micro-batches: {shown}"
        f"{changed}.\n"
        f"Product of two {size['matmul']} x {size['matmul']} matrices: {peak / 1e12:.3g} TFLOP/s, the peak below."
    )


def card(device: torch.device) -> str:
    """The name of what computes."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def image_line(row: Row, peak: float) -> str:
    rate = "–" if row.seconds is None else f"{1 / row.seconds:.2f}"
    return f"| {row.title.removeprefix('images, ')} | {row.note or rate} | {counted(row, peak)} |"


def iteration_line(row: Row, reference: Row, peak: float) -> str:
    seconds = "–" if row.seconds is None else f"{row.seconds:.2f}"
    return f"| {row.title} | {row.note or seconds} | {counted(row, peak)} | {number(ratio(reference, row))} |"


def counted(row: Row, peak: float) -> str:
    """Memory, operations and their share of the peak, as cells."""
    memory = None if row.peak is None else row.peak / 1e9
    share = None if row.seconds is None or row.flops is None else 100 * row.flops / row.seconds / peak
    work = None if row.flops is None else row.flops / 1e12
    return f"{number(memory)} | {number(work)} | {'–' if share is None else f'{share:.0f}%'}"


def ratio(reference: Row, row: Row) -> float | None:
    return None if reference.seconds is None or row.seconds is None else reference.seconds / row.seconds


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def goals(bench: Bench, sampled: list[Row], rows: dict[str, Row]) -> list[str]:
    """What was asked for and whether it is reached, which only a card can tell."""
    rates = [1 / row.seconds for row in sampled if row.seconds]
    found = {
        "images": max(rates, default=None),
        "all": rows[ALL_STEPS].seconds,
        "quarter": rows[QUARTER].seconds,
        "faster": ratio(rows[RELEASED], rows[ALL_STEPS]),
        "faster quarter": ratio(rows[RELEASED], rows[QUARTER]),
    }
    lines = ["| goal, for an NVIDIA H200 | asked | here | |", "|---" * 4 + "|"]
    for title, key, asked, more in GOALS:
        value = found[key]
        verdict = "no card" if bench.device.type == "cpu" or bench.options.reduced else "not measured"
        if verdict != "no card" and value is not None:
            verdict = "reached" if (value >= asked if more else value <= asked) else "not reached"
        lines.append(f"| {title} | {'≥' if more else '≤'} {asked:g} | {number(value)} | {verdict} |")
    return lines


def setting(text: str) -> tuple[str, Any]:
    """`key=value`, the value in YAML."""
    key, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError("should be key=value")
    return key, yaml.safe_load(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", help="of the frozen networks; float16, on a CPU float32")
    parser.add_argument("--repeat", type=int, default=3, help="iterations that count, after one that does not")
    parser.add_argument("--set", type=setting, action="append", default=[], help="a setting of the run, key=value")
    parser.add_argument("--reduced", action="store_true", help="narrow models, in seconds: numbers mean nothing")
    parser.add_argument("--keep", action="store_true", help="write the tables to benchmarks/, too")
    options = parser.parse_args()
    options.set = dict(options.set)
    options.dtype = options.dtype or ("float32" if options.device == "cpu" else "float16")
    if options.device == "cpu" and not options.reduced:
        sys.exit("Stable Diffusion 1.5 at full size takes hours on a CPU: --reduced, or a machine with a GPU.")
    with tempfile.TemporaryDirectory() as folder:
        tables = run(build(options, Path(folder)))
    print(tables)
    if options.keep:
        name = re.sub(r"\W+", "-", card(torch.device(options.device)).lower()).strip("-")
        (ROOT / "benchmarks" / f"sd15_{name}.md").write_text(tables)


if __name__ == "__main__":
    main()
