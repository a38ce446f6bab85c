"""The model of a run as its images are generated: with an adapter, another method, or as it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from distalign.alignment.reading import WorldPaths
from distalign.config.methods import METHODS
from distalign.diffusion.adapters import load_adapter
from distalign.diffusion.intervention import Intervention
from distalign.diffusion.pipeline import Pipeline, load_generator
from distalign.methods.fitting import load_method, make_world


def load_run(
    spec: Mapping[str, Any], prompts: Path, inputs: Mapping[str, Path], device: torch.device
) -> tuple[Pipeline, Intervention]:
    """Model and intervention of `Study.image_spec`.

    Args:
        spec: `Study.image_spec`.
        prompts: The prompt set.
        inputs: `backbone`; `adapter` of a run that has one; of a method that looks at images while it samples also
            `classifier`, `clip`, `dino` and `face_embedding`.
        device: Where to compute.

    Raises:
        UserError: unreadable model or adapter.
    """
    if "adapter" not in inputs or METHODS[spec["adapter"]["method"]].adapter:
        pipeline = load_generator(inputs["backbone"], spec, device)
        if "adapter" in inputs:
            load_adapter(pipeline, inputs["adapter"])
        return pipeline, Intervention()
    paths = None
    if "classifier" in inputs:
        paths = WorldPaths(
            prompts=(prompts,),
            backbone=inputs["backbone"],
            classifier=inputs["classifier"],
            clip=inputs["clip"],
            dino=inputs["dino"],
            face_embedding=inputs["face_embedding"],
        )
    world = make_world(spec, inputs["backbone"], device, paths)
    return world.pipeline, load_method(inputs["adapter"], world)
