"""What holds for every method, on a random model with the blocks of Stable Diffusion 1.5."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distalign.config.methods import METHODS, UNCHANGED
from distalign.diffusion.intervention import Intervention
from distalign.diffusion.pipeline import load_pipeline
from distalign.methods.fitting import apply, fit, load_method, save_method
from distalign.methods.world import World
from helpers.looking import reader
from helpers.tiny import sd15_shaped_pipeline

from .conftest import UNIFORM, Images, settings_of

FITTED = [name for name, method in METHODS.items() if not method.adapter and name != UNCHANGED]
QUICK: dict[str, dict[str, Any]] = {
    "uce": {"rounds": 2},
    "interpret_diffusion": {"images": 2, "steps": 2, "batch_size": 2},
    "doodl": {"steps": 1},
    "fair_diffusion": {"lookup": "all"},
}
ALIGN = {
    "gender": {"gender": UNIFORM["gender"]},
    "gender+race": {"gender": UNIFORM["gender"], "race": UNIFORM["race"]},
}


@pytest.fixture(scope="session")
def sd15_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sd15_shaped_pipeline(tmp_path_factory.mktemp("sd15"))


@pytest.fixture
def sd15(world: World, sd15_backbone: Path) -> World:
    return replace(world, pipeline=load_pipeline(sd15_backbone), load_reader=reader, images=2, steps=2)


@pytest.mark.parametrize("align", [pytest.param("gender", marks=pytest.mark.methods), "gender+race"])
@pytest.mark.parametrize("method", FITTED)
def test_images_do_not_depend_on_the_batch_and_survive_saving(
    sd15: World,
    method: str,
    align: str,
    tmp_path: Path,
    both_ways: Callable[[World, Intervention], Images],
    sd15_backbone: Path,
) -> None:
    settings = settings_of(method, **QUICK.get(method, {}))
    original = both_ways(sd15, Intervention())
    fitted = fit(method, sd15, settings, ALIGN[align])
    spec = {"method": method, "align": ALIGN[align]}
    save_method(tmp_path / "adapter", spec, settings, fitted)
    images = both_ways(sd15, apply(method, sd15, settings, ALIGN[align], fitted))
    torch.testing.assert_close(images.together, images.alone, atol=2e-4, rtol=0)
    assert (images.together - original.together).abs().max() > 1e-4, "the method changes nothing"
    fresh = replace(sd15, pipeline=load_pipeline(sd15_backbone))
    again = both_ways(fresh, load_method(tmp_path / "adapter", fresh))
    torch.testing.assert_close(again.together, images.together, atol=1e-5, rtol=0)


def test_every_method_is_documented_and_fits_its_entry() -> None:
    modules = {path.stem for path in (Path(__file__).parents[3] / "lib/distalign/methods").glob("*.py")}
    for name in FITTED:
        assert name in modules
        assert METHODS[name].model()().model_dump().keys() == METHODS[name].settings.keys()
