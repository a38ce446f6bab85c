"""Gradients through networks in half precision: a scale that keeps small ones above float16's underflow.

What passes through float16 are the frozen networks' activations and their gradients; adapters, latents, losses and
text encoder are float32, and so is every sum over images or steps. The loss is multiplied by a power of two before it
is differentiated, and the adapters' gradients are divided by it: in float32 that changes no bit. bfloat16 has the
range of float32 and needs no scale.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FIRST = 2.0**12
LARGEST = 2.0**24
CLEAN = 100  # finite gradients in a row before the scale is doubled


@dataclass
class LossScale:
    """Factor on the loss, found as training goes: halved when a gradient is not finite, doubled after CLEAN that are.

    It depends on nothing but the gradients, so a run that goes on from a checkpoint which keeps it, goes on alike.

    Attributes:
        factor: a power of two; 1 without scaling.
        clean: finite gradients since it last changed.
        dynamic: whether it changes.
    """

    factor: float = 1.0
    clean: int = 0
    dynamic: bool = False

    @classmethod
    def of(cls, precision: str) -> "LossScale":
        """The scale to begin with, for frozen networks in this precision."""
        return cls(FIRST, dynamic=True) if precision == "float16" else cls()

    def update(self, finite: bool) -> None:
        """Take in whether an iteration's gradient was finite, in all processes."""
        if not self.dynamic:
            return
        self.clean = self.clean + 1 if finite else 0
        if not finite:
            self.factor /= 2
        elif self.clean == CLEAN:
            self.factor, self.clean = min(2 * self.factor, LARGEST), 0

    def stored(self) -> dict[str, Any]:
        """For a checkpoint; empty without scaling."""
        return {"loss_scale": {"factor": self.factor, "clean": self.clean}} if self.dynamic else {}

    def restore(self, meta: Mapping[str, Any]) -> None:
        """Take up what `stored` put into a checkpoint."""
        if self.dynamic and "loss_scale" in meta:
            self.factor, self.clean = meta["loss_scale"]["factor"], meta["loss_scale"]["clean"]
