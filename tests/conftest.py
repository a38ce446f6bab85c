"""Fixtures shared by all tests."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a tiny random Stable Diffusion pipeline; read only."""
    from helpers.tiny import tiny_pipeline

    return tiny_pipeline(tmp_path_factory.mktemp("backbone"))
