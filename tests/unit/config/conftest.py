"""A repository with the real presets and config.yaml, and prompt sets of its own."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from distalign.config.files import read_yaml
from distalign.config.problems import ConfigError
from distalign.config.study import load_study
from helpers.workflow import first_rows

REPOSITORY = Path(__file__).parents[3]


CONFIG = first_rows()


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("repository"))


@pytest.fixture
def own_root(tmp_path: Path) -> Path:
    """A repository that a test may change."""
    return make_root(tmp_path)


@pytest.fixture
def raw() -> dict[str, Any]:
    return copy.deepcopy(CONFIG)


@pytest.fixture
def problems_of(root: Path) -> Callable[[Any], dict[str, str]]:
    """Path in the YAML -> message, of everything that is wrong with a configuration."""

    def problems(config: Any) -> dict[str, str]:
        return listed(config, root)

    return problems


def listed(config: Any, root: Path) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load_study(config, root)
    lines = [line for line in str(caught.value).splitlines() if line.startswith("  ")]
    return {where.strip().partition(": ")[0]: what.strip() for where, what in zip(lines[::2], lines[1::2], strict=True)}


# The mini preset is tuned from time to time; what these tests say of it must not change with it.
PINNED = {
    "images_per_step": 64,
    "prompts_per_step": 4,
    "sampler_steps": [10],
    "gradient": {"weights": "adjusted"},
    "rank": 8,
}


def make_root(path: Path) -> Path:
    shutil.copytree(REPOSITORY / "presets", path / "presets")
    mini = read_yaml(path / "presets" / "mini.yaml")
    mini["defaults"] |= PINNED
    (path / "presets" / "mini.yaml").write_text(yaml.safe_dump(mini, sort_keys=False))
    (path / "resources" / "prompts").mkdir(parents=True)
    for name in ("paper_numbers.yaml", "claims.yaml"):
        shutil.copy(REPOSITORY / "resources" / name, path / "resources")
    shutil.copy(REPOSITORY / "config.yaml", path)
    splits = {"train": [f"job {index}" for index in range(8)], "validation": ["clerk"], "test": ["judge", "cook"]}
    for name in ("occupations", "contexts", "sports", "descriptors", "styles"):
        own = {"test": splits["test"]} if name == "styles" else splits
        content = {"template": f"a face of a {{concept}}, {name}", "splits": own}
        for file in (f"{name}.json", f"mini_{name}.json"):
            (path / "resources" / "prompts" / file).write_text(json.dumps(content))
    return path
