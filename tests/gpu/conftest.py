"""Tests on a GPU: `make test-gpu`. What can, runs on the CPU among the default tests too."""

import os

import pytest
import torch

# Read when CUDA starts: with it, matrix products are the same every time.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")],
)


@pytest.fixture(params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each kind of device."""
    return torch.device(request.param)


@pytest.fixture(params=[CUDA])
def gpu(request: pytest.FixtureRequest) -> torch.device:
    """A GPU, for what other tests hold on the CPU."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions in float32 as they say, and the same algorithm every time."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
