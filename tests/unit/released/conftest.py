from pathlib import Path

import pytest

from helpers.tiny import sd15_shaped_pipeline


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The blocks and layers of Stable Diffusion 1.5, so all of its names, in a narrow model."""
    return sd15_shaped_pipeline(tmp_path_factory.mktemp("sd15"))
