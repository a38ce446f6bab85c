"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

# Test processes run side by side, and torch jobs of several threads each slow each other down several times over.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a tiny random Stable Diffusion pipeline; read only."""
    from helpers.tiny import tiny_pipeline

    return tiny_pipeline(tmp_path_factory.mktemp("backbone"))
