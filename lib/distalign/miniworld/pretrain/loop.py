"""What every small training shares: learning-rate curve, averaging of weights, precision, a line per interval."""

import copy
import logging
import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


def warm_cosine(steps: int, warmup: int, hold: float = 0.0, final: float = 0.02) -> Callable[[int], float]:
    """Learning-rate factor: linear warm-up, constant until the share `hold` of the steps, cosine down to `final`."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        start = max(warmup, int(hold * steps))
        progress = min(1.0, max(0.0, (step - start) / max(1, steps - start)))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor


def mixed_precision(device: torch.device) -> AbstractContextManager[None]:
    """bfloat16 autocast where the processor has matrix units for it; there it is about three times as fast."""
    fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast)


class Average:
    """Exponential moving average of a module's parameters (and buffers, copied)."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay, self.step = decay, 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move a little towards the module's present weights."""
        self.step += 1
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.module.parameters()), [p.detach() for p in module.parameters()], 1 - decay)
        for mine, theirs in zip(self.module.buffers(), module.buffers(), strict=True):
            mine.copy_(theirs)


class Progress:
    """Collects losses and logs their mean at an interval."""

    def __init__(self, name: str, steps: int, every: int) -> None:
        self.name, self.steps, self.every = name, steps, every
        self.sums: dict[str, float] = {}
        self.count, self.start = 0, time.monotonic()

    def add(self, step: int, **losses: Tensor) -> None:
        """Note one step's losses."""
        for key, value in losses.items():
            self.sums[key] = self.sums.get(key, 0.0) + float(value.detach())
        self.count += 1
        if (step + 1) % self.every == 0 or step + 1 == self.steps:
            text = "  ".join(f"{k} {v / self.count:.4f}" for k, v in self.sums.items())
            log.info("%s %d/%d  %.0f s  %s", self.name, step + 1, self.steps, time.monotonic() - self.start, text)
            self.sums, self.count = {}, 0


def optimise(
    parameters: Iterable[nn.Parameter],
    rate: float,
    factor: Callable[[int], float],
    betas: tuple[float, float] = (0.9, 0.99),
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW and its learning-rate schedule."""
    optimiser = torch.optim.AdamW(parameters, rate, betas=betas, weight_decay=1e-2)
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def to_signed(images: Tensor) -> Tensor:
    """uint8 pictures to floats in [-1, 1]."""
    return images.float() / 127.5 - 1
