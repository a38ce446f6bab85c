"""A tiny world for methods: a random model, a few prompts, and faces read by a rule instead of a network."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distalign.config.attributes import PAPER_ATTRIBUTES
from distalign.diffusion.intervention import Batch, Intervention, render
from distalign.diffusion.pipeline import load_pipeline
from distalign.methods.world import World
from distalign.prompts import Prompt

STEPS, GUIDANCE = 3, 3.0
UNIFORM = {attribute: {name: 1 / len(names) for name in names} for attribute, names in PAPER_ATTRIBUTES.items()}


def prompt(concept: str, split: str = "train") -> Prompt:
    return Prompt(concept.replace(" ", "-"), f"a photo of a {concept}", concept, split)


@pytest.fixture
def world(tiny_backbone: Path) -> World:
    """Nothing looks at images here: tests of methods that do put a reader of their own into `load_reader`."""
    return World(
        pipeline=load_pipeline(tiny_backbone),
        padding="longest",
        steps=STEPS,
        guidance=GUIDANCE,
        micro_batch=4,
        seed=0,
        images=4,
        train=[prompt("cook"), prompt("judge"), prompt("bus driver")],
        validation=[prompt("clerk", "validation"), prompt("pilot", "validation")],
        load_reader=lambda: pytest.fail("this method should not look at images"),
    )


@dataclass
class Images:
    """Images of eight (prompt, index) pairs, made together and one by one."""

    together: Tensor
    alone: Tensor


@pytest.fixture
def batch() -> Batch:
    prompts = [prompt("doctor", "test"), prompt("farm equipment operator", "test")]
    return Batch([prompts[i // 4] for i in range(8)], [i % 4 for i in range(8)], 4, seed=5)


@pytest.fixture
def both_ways(batch: Batch) -> Callable[[World, Intervention], Images]:
    """Renders the batch as one of eight and as eight of one."""

    def make(world: World, intervention: Intervention) -> Images:
        def images(rows: range) -> Tensor:
            part = Batch([batch.prompts[i] for i in rows], [batch.index[i] for i in rows], 4, batch.seed)
            return render(world.pipeline, intervention, part, list(rows), world.steps, world.guidance, world.padding)

        return Images(images(range(8)), torch.cat([images(range(i, i + 1)) for i in range(8)]))

    return make


def settings_of(method: str, **changed: Any) -> dict[str, Any]:
    """A method's default settings, some of them changed."""
    from distalign.config.methods import METHODS

    return METHODS[method].model().model_validate(changed).model_dump()
