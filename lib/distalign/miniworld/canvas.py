"""A batch of pictures to paint on, with soft brushes.

The picture is the square [-1, 1]^2, y pointing down. A shape is a coverage in [0, 1] from a signed distance,
one pixel soft at its edge, so that pictures of any size look alike. Paint covers, shade multiplies.
"""

import numpy as np
import torch
from torch import Tensor


class Canvas:
    """`x`, `y` (n, size, size) are coordinates of the head: moved by `shift`, enlarged by `scale`, turned by `roll`."""

    def __init__(self, scale: Tensor, roll: Tensor, shift: np.ndarray, size: int) -> None:
        self.n, self.size = len(scale), size
        line = (torch.arange(size, dtype=torch.float32) + 0.5) * (2 / size) - 1
        self.screen_y, self.screen_x = (g[None] for g in torch.meshgrid(line, line, indexing="ij"))
        centre = torch.as_tensor(shift, dtype=torch.float32)
        u = (self.screen_x - centre[:, 0, None, None]) / scale
        v = (self.screen_y - centre[:, 1, None, None]) / scale
        self.x, self.y = roll.cos() * u + roll.sin() * v, roll.cos() * v - roll.sin() * u
        self.edge = (2 / size) / scale
        self.image = torch.zeros(self.n, 3, size, size)

    @staticmethod
    def value(values: np.ndarray) -> Tensor:
        """One number per picture, as (n, 1, 1)."""
        return torch.as_tensor(np.asarray(values), dtype=torch.float32).view(-1, 1, 1)

    @staticmethod
    def colour(rgb: np.ndarray | tuple[float, float, float]) -> Tensor:
        """RGB per picture, or one for all, as (n, 3, 1, 1)."""
        return torch.as_tensor(np.asarray(rgb), dtype=torch.float32).view(-1, 3, 1, 1)

    def inside(self, distance: Tensor, softness: float = 1.0) -> Tensor:
        """Coverage of the region where the signed distance is negative."""
        return (0.5 - distance / (self.edge * softness)).clamp(0, 1)

    def ellipse(self, cx: Tensor | float, cy: Tensor | float, a: Tensor | float, b: Tensor | float,
                power: float = 2.0, softness: float = 1.0) -> Tensor:  # fmt: skip
        """Coverage of a superellipse with half axes a, b; power 2 is round, larger is boxier."""
        dx, dy = ((self.x - cx) / a).abs(), ((self.y - cy) / b).abs()
        if power == 2.0:
            radius = (dx * dx + dy * dy).sqrt()
        else:
            radius = (dx.pow(power) + dy.pow(power)).clamp_min(1e-9).pow(1 / power)
        return self.inside((radius - 1) * torch.minimum(torch.as_tensor(a), torch.as_tensor(b)), softness)

    def blob(self, cx: Tensor | float, cy: Tensor | float, a: Tensor | float, b: Tensor | float) -> Tensor:
        """A Gaussian spot."""
        return torch.exp(-(((self.x - cx) / a) ** 2 + ((self.y - cy) / b) ** 2))

    def cover(self, alpha: Tensor, rgb: Tensor) -> None:
        """Paint a colour (n or 1, 3, 1, 1 or more) with the given coverage (n, size, size)."""
        self.image = self.image + (rgb - self.image) * alpha[:, None]

    def shade(self, alpha: Tensor, factor: float | Tensor) -> None:
        """Multiply what is there by a factor, with the given coverage."""
        self.image = self.image * (1 + (factor - 1) * alpha)[:, None]
