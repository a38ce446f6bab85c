"""Time and memory of one finetuning iteration's rendering and gradient, this engine against the released structure.

All forms render the same images and give the same gradient, which is checked (the sparse ones are estimates of it).
The released code renders the tuned and the frozen model without gradient, then the tuned one again with a checkpointed
U-Net and a graph through all steps. The networks have the sizes of the preset and random weights; detectors,
classifiers and encoders, the same for all forms, are left out.

    python benchmarks/gradient_engine.py --size mini
    python benchmarks/gradient_engine.py --size sd15 --device cuda --dtype float16
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from distalign.alignment.gradient import GradientSettings, StepChoice, accumulate_gradients
from distalign.alignment.memory import retain_freed_memory
from distalign.diffusion.adapters import attach_adapter
from distalign.diffusion.noise import initial_noise
from distalign.diffusion.pipeline import Pipeline
from distalign.diffusion.sampler import advance, decode, predict_noise, sample
from distalign.diffusion.schedule import build_schedule
from distalign.diffusion.text import encode_prompts
from distalign.miniworld.pretrain.autoencoder import build_autoencoder
from distalign.miniworld.pretrain.denoiser import build_denoiser
from distalign.miniworld.pretrain.tokenizer import train_tokenizer

PROMPT = "a photo of the face of a doctor, a person"
GUIDANCE = 3.0
TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SIZES = {
    "mini": {"images": 32, "steps": 20, "micro_batch": 32},
    "sd15": {"images": 24, "steps": 21, "micro_batch": 4},
}


@dataclass
class Bench:
    """One iteration's work: a pipeline with an adapter, noise, and a loss linear in the images."""

    pipeline: Pipeline
    parameters: list[Tensor]
    noise: Tensor
    index: Tensor
    steps: int
    micro_batch: int
    slope: Tensor
    clock: str

    def loss(self, images: Tensor, rows: slice) -> Tensor:
        """Of the images in these rows."""
        return (images * self.slope[rows]).sum()

    def rows(self) -> list[slice]:
        """The micro-batches."""
        starts = range(0, len(self.noise), self.micro_batch)
        return [slice(start, min(start + self.micro_batch, len(self.noise))) for start in starts]


def networks(size: str) -> Pipeline:
    """A random pipeline of the size of a preset's."""
    tokenizer = train_tokenizer([PROMPT])
    if size == "mini":
        denoiser = build_denoiser(tokenizer)
        return Pipeline(denoiser.unet, build_autoencoder(), denoiser.text_encoder, tokenizer, TABLE)
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        sample_size=512,
    )
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    return Pipeline(unet, vae, CLIPTextModel(text), tokenizer, TABLE)


def build(options: argparse.Namespace) -> Bench:
    torch.manual_seed(0)
    pipeline = networks(options.size)
    for module in pipeline.modules:
        module.requires_grad_(False).eval().to(options.device, getattr(torch, options.dtype))
    pipeline.vae.to(memory_format=torch.channels_last)  # as load_pipeline does
    adapter = attach_adapter(pipeline, options.train, rank=8, prefix_tokens=0, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in adapter.parameters.values():  # a fresh LoRA has no gradient in its first half
        parameter.data += (0.02 * torch.randn(parameter.shape, generator=generator)).to(parameter.device)
    count = options.images
    side = pipeline.image_size
    return Bench(
        pipeline,
        list(adapter.parameters.values()),
        initial_noise(pipeline.latent_shape, range(count)).to(options.device),
        torch.zeros(count, dtype=torch.long, device=options.device),
        options.steps,
        options.micro_batch,
        torch.randn(count, 3, side, side, generator=generator).to(options.device) / count,
        options.clock,
    )


def released(bench: Bench) -> None:
    """Two renderings without gradient, one with: checkpointed U-Net, graph through all steps, micro-batches."""
    pipeline = bench.pipeline
    with torch.no_grad():
        for _ in ("targets from the tuned model", "originals from the frozen one"):
            conditioning = encode_prompts(pipeline, [PROMPT])
            rollout = sample(pipeline, bench.noise, conditioning, bench.index, bench.steps, GUIDANCE, bench.micro_batch)
            decode(pipeline, rollout.z0, bench.micro_batch)
    schedule = build_schedule(pipeline.scheduler_config, bench.steps)
    timesteps = torch.as_tensor(schedule.timesteps, device=bench.noise.device)
    pipeline.unet.enable_gradient_checkpointing()
    pipeline.unet.train()  # else diffusers does not checkpoint; there is no dropout
    conditioning = encode_prompts(pipeline, [PROMPT])
    leaf = conditioning.leaf()
    for rows in bench.rows():
        states, mask = leaf.batch(bench.index[rows])
        z, before = bench.noise[rows], None
        for i in range(bench.steps):
            output = predict_noise(pipeline, z.detach(), timesteps[i], states, mask, GUIDANCE)
            z, before = advance(schedule, i, z, output, before)
        bench.loss(decode(pipeline, z, bench.micro_batch), rows).backward()
    conditioning.backward(leaf)
    pipeline.unet.disable_gradient_checkpointing()
    pipeline.unet.eval()


def ours(keep_graph: bool, share: int = 1) -> Callable[[Bench], None]:
    """This engine: originals are read from a file; every `share`-th step is differentiated."""

    def run(bench: Bench) -> None:
        pipeline = bench.pipeline
        settings = GradientSettings("unstandardised", keep_graph=keep_graph)
        steps = tuple(range(share // 2, bench.steps, share))
        choice = StepChoice(steps, (float(share),) * len(steps))
        conditioning = encode_prompts(pipeline, [PROMPT])
        leaf = conditioning.leaf()
        rollout = sample(
            pipeline, bench.noise, leaf, bench.index, bench.steps, GUIDANCE, bench.micro_batch,
            keep=not keep_graph, graph_steps=choice.steps if keep_graph else (),
        )  # fmt: skip
        cotangent = torch.empty_like(rollout.z0)
        if not keep_graph:
            with torch.no_grad():
                decode(pipeline, rollout.z0, bench.micro_batch)  # faces are found and targets chosen here
        for rows in bench.rows():
            z0 = rollout.z0[rows].requires_grad_()
            (cotangent[rows],) = torch.autograd.grad(bench.loss(decode(pipeline, z0, len(z0)), rows), z0)
        accumulate_gradients(
            pipeline, rollout, cotangent, leaf, bench.index, GUIDANCE, settings, choice, bench.micro_batch
        )
        conditioning.backward(leaf)

    return run


FORMS: dict[str, tuple[str, Callable[[Bench], None]]] = {
    "released": ("released structure", released),
    "flat": ("flat", ours(False)),
    "keep": ("kept graphs", ours(True)),
    "flat4": ("flat, a quarter of the steps", ours(False, 4)),
    "keep4": ("kept graphs, a quarter of the steps", ours(True, 4)),
}


def gradient(bench: Bench, form: str) -> tuple[Tensor, float]:
    """The adapter's gradient, and the seconds it took."""
    for parameter in bench.parameters:
        parameter.grad = None
    gc.collect()
    synchronise(bench)
    clock = CLOCKS[bench.clock]
    started = clock()
    FORMS[form][1](bench)
    synchronise(bench)
    seconds = clock() - started
    return torch.cat([p.grad.flatten() for p in bench.parameters if p.grad is not None]), seconds


def synchronise(bench: Bench) -> None:
    if bench.noise.device.type == "cuda":
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Timing:
    """Of one form: seconds, how many times as fast as the released structure, relative difference of the gradient."""

    seconds: float
    faster: float
    difference: float


def measure_time(options: argparse.Namespace) -> dict[str, Timing]:
    """Medians over rounds in which each form runs once.

    A form is compared with the released structure of the same round, so that a machine's drifting speed matters less.
    """
    if options.device == "cpu":
        retain_freed_memory()  # as finetuning does; the round that warms up makes it the process's
    bench = build(options)
    for form in FORMS:
        gradient(bench, form)
    rounds: list[dict[str, float]] = []
    gradients = {}
    for _ in range(options.repeat):
        seconds = {}
        for form in FORMS:
            gradients[form], seconds[form] = gradient(bench, form)
        rounds.append(seconds)
    reference = gradients["released"]
    return {
        form: Timing(
            statistics.median(seconds[form] for seconds in rounds),
            statistics.median(seconds["released"] / seconds[form] for seconds in rounds),
            ((gradients[form] - reference).norm() / reference.norm()).item(),
        )
        for form in FORMS
    }


def measure_memory(options: argparse.Namespace) -> float:
    """Peak memory of one form in MB, beyond what networks and libraries take; in a process of its own."""
    bench = build(options)
    if options.device == "cuda":
        held = torch.cuda.memory_allocated()
        gradient(bench, options.memory)
        return (torch.cuda.max_memory_allocated() - held) / 1e6
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    gradient(bench, options.memory)
    return resident("VmHWM") - before


def resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1e3 for line in lines if line.startswith(field))


def memory_in_child(options: argparse.Namespace, form: str, steps: int) -> float:
    names = ("size", "device", "dtype", "images", "micro_batch")
    arguments = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in names]
    command = [sys.executable, __file__, *arguments, f"--steps={steps}", f"--memory={form}", "--train", *options.train]
    # large blocks go back to the system at once, so that the peak is of what is in use
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="mini")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--train", nargs="+", default=["text_encoder"], choices=["text_encoder", "unet"])
    parser.add_argument("--images", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--micro-batch", type=int)
    parser.add_argument("--repeat", type=int, default=5, help="rounds")
    parser.add_argument("--measure", nargs="+", choices=["time", "memory"], default=["time", "memory"])
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: for a machine that is busy otherwise")
    parser.add_argument("--memory", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name, value in SIZES[options.size].items():
        setattr(options, name, getattr(options, name) or value)
    if options.memory:
        print(measure_memory(options))
        return
    print(
        f"{options.size}, {options.images} images, micro-batches of {options.micro_batch}, {options.device}, "
        f"{options.dtype}, {torch.get_num_threads()} threads, training {' and '.join(options.train)}\n"
    )
    if "time" in options.measure:
        report_time(options)
    if "memory" in options.measure:
        report_memory(options)


def report_time(options: argparse.Namespace) -> None:
    """Print seconds and ratios; exit with a message if the gradients are not the same."""
    results = measure_time(options)
    print(
        f"| {options.steps} steps | {options.clock} seconds | times faster | gradient differs by |\n|---|---|---|---|"
    )
    for form, (title, _) in FORMS.items():
        timing = results[form]
        shown = "(estimate)" if form.endswith("4") else f"{timing.difference:.1e}"
        print(f"| {title} | {timing.seconds:.2f} | {timing.faster:.2f} | {shown} |", flush=True)
    allowed = 1e-3 if options.dtype == "float32" else 5e-2
    if max(results[form].difference for form in ("flat", "keep")) > allowed:
        sys.exit("the forms do not give the same gradient")


def report_memory(options: argparse.Namespace) -> None:
    """Print peak memory at 10 and 50 steps."""
    print("\n| peak MB | 10 steps | 50 steps | ratio |\n|---|---|---|---|")
    for form in ("released", "flat", "keep"):
        low, high = (memory_in_child(options, form, steps) for steps in (10, 50))
        print(f"| {FORMS[form][0]} | {low:.0f} | {high:.0f} | {high / low:.2f} |", flush=True)


if __name__ == "__main__":
    main()
