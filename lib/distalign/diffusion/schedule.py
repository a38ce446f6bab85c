"""DPM-Solver++ 2M as the linear recursion it is, read off diffusers' own scheduler."""

import copy
import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler

from distalign.errors import UserError

# The paper's sampler, whatever scheduler the model was saved with. Its diffusers (0.19) ends at the first entry of
# the noise table, which today's diffusers calls "sigma_min".
SOLVER: dict[str, Any] = {
    "algorithm_type": "dpmsolver++",
    "solver_order": 2,
    "solver_type": "midpoint",
    "lower_order_final": True,
    "timestep_spacing": "linspace",
    "final_sigmas_type": "sigma_min",
}
_TABLE = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr",
    "prediction_type",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Schedule:
    """One sampling of S steps as a linear recursion in latents z_i and network outputs e_i.

    m_i = data_latent[i] z_i + data_output[i] e_i   (the clean latent as predicted at step i)
    z_{i+1} = latent[i] z_i + current[i] m_i + previous[i] m_{i-1}

    from z_0 = z_T, the initial noise, to z_S, the latent that is decoded. All arrays are (S,) float64.
    """

    timesteps: np.ndarray
    data_latent: np.ndarray
    data_output: np.ndarray
    latent: np.ndarray
    current: np.ndarray
    previous: np.ndarray
    noise_share: np.ndarray  # the released code's 1 / A_t at these timesteps, not normalised
    signal: np.ndarray  # sqrt(abar_t): z_i is made of signal x clean latent and sqrt(1 - signal^2) x noise

    @property
    def steps(self) -> int:
        """Number of network evaluations, S."""
        return len(self.timesteps)

    def linear_coefficients(self) -> tuple[float, np.ndarray]:
        """(a, a_i (S,)) of z_S = a z_T + sum_i a_i e_i, the outputs e_i held fixed."""
        weights = np.zeros(self.steps)
        adjoint, carried = 1.0, 0.0
        for i in reversed(range(self.steps)):
            data = self.current[i] * adjoint + carried
            weights[i] = self.data_output[i] * data
            carried = self.previous[i] * adjoint
            adjoint = self.latent[i] * adjoint + self.data_latent[i] * data
        return adjoint, weights

    def noised(self, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Clean latents (B, C, h, w) noised to the last timestep by standard normal noise of the same shape."""
        signal = float(self.signal[-1])
        return signal * clean + math.sqrt(1 - signal**2) * noise

    def last_denoising(self) -> "Schedule":
        """A sampling of one step: from the last timestep straight to the clean latent predicted there."""
        last = {name: values[-1:] for name, values in vars(self).items()}
        zero, one = np.zeros(1), np.ones(1)
        return replace(self, **last | {"latent": zero, "current": one, "previous": zero})

    def released_factors(self) -> np.ndarray:
        """(S,) factors by which the released code scales the gradient of each e_i; their product is 1.

        c_t is proportional to sqrt(abar_t) sqrt(1 - abar_t) / beta_t, one over the A_t of a one-step DDPM update: not
        the solver's own, so a_i c_i is constant only in the middle of the chain.
        """
        return np.asarray(self.noise_share / np.exp(np.log(self.noise_share).mean()))


def build_schedule(scheduler_config: Mapping[str, Any], steps: int) -> Schedule:
    """The schedule of a model (its diffusers scheduler configuration) for a number of steps; cached.

    Raises:
        UserError: the model predicts something whose clean latent is not linear in latent and output.
    """
    table = {key: scheduler_config[key] for key in _TABLE if scheduler_config.get(key) is not None}
    if table.get("prediction_type", "epsilon") not in ("epsilon", "v_prediction"):
        raise UserError(
            f"scheduler_config.json: prediction_type {table['prediction_type']!r} is not supported; "
            "use a model with epsilon or v_prediction"
        )
    return _build(json.dumps(table, sort_keys=True), steps)


@functools.lru_cache(maxsize=64)
def _build(table: str, steps: int) -> Schedule:
    scheduler: Any = DPMSolverMultistepScheduler(**json.loads(table), **SOLVER)
    scheduler.set_timesteps(steps)
    scheduler.sigmas = scheduler.sigmas.double()
    timesteps = scheduler.timesteps.numpy()
    columns = np.array([_step_response(scheduler, i) for i in range(steps)]).T
    abar, beta = scheduler.alphas_cumprod.double().numpy()[timesteps], scheduler.betas.double().numpy()[timesteps]
    data_latent, data_output, latent, current, previous = columns
    share = np.sqrt(abar * (1 - abar)) / beta
    return Schedule(timesteps, data_latent, data_output, latent, current, previous, share, np.sqrt(abar))


def _step_response(scheduler: Any, i: int) -> tuple[float, float, float, float, float]:
    """Impulse responses of step i: (data_latent, data_output, latent, current, previous).

    The impulses are scalars of value 0 and 1: diffusers casts the latent to float32 in between, which they survive,
    and scalar arithmetic with its float64 sigmas stays float64.
    """
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)

    def respond(latent: torch.Tensor, output: torch.Tensor, history: torch.Tensor) -> tuple[float, float]:
        probe = copy.copy(scheduler)
        probe._step_index = i
        probe.lower_order_nums = min(i, probe.config.solver_order)
        probe.model_outputs = [zero, history]
        following = probe.step(output, scheduler.timesteps[i], latent).prev_sample
        return following.item(), probe.model_outputs[-1].item()

    following, data_latent = respond(one, zero, zero)
    through_output, data_output = respond(zero, one, zero)
    previous, _ = respond(zero, zero, one)
    current = through_output / data_output
    return data_latent, data_output, following - current * data_latent, current, previous
