from collections.abc import Callable

import torch
from torch import Tensor

from distalign.diffusion.intervention import Batch, Intervention, Step, render
from distalign.methods.assignment import assign, cells
from distalign.methods.fair_diffusion import FairDiffusion, apply, fit, keep_largest
from distalign.methods.world import World

from .conftest import GUIDANCE, STEPS, UNIFORM, Images, prompt, settings_of

GENDER = {"gender": UNIFORM["gender"]}


def test_each_channel_keeps_its_largest_entries() -> None:
    deltas = torch.arange(1.0, 21).view(1, 1, 1, 4, 5) * torch.tensor([1.0, -2.0]).view(1, 1, 2, 1, 1)
    kept = keep_largest(deltas, 0.9)
    assert kept[0, 0, 0].flatten().tolist() == [0.0] * 18 + [19, 20]
    assert kept[0, 0, 1].flatten().tolist() == [0.0] * 18 + [-38, -40]


class Slowly(Intervention):
    """Semantic guidance of one image, edit after edit, as the paper writes it."""

    branches = ("female person", "male person")

    def __init__(self, female: bool) -> None:
        self.female, self.momentum = female, torch.zeros(())

    def score(self, step: Step) -> Tensor:
        (empty,) = step.evaluate(step.empty_rows[None])
        (own,) = step.evaluate(step.prompt_rows[None])
        total = torch.zeros_like(own)
        for branch in range(2):
            (edit,) = step.evaluate(step.branch_rows(branch)[None])
            sign = 1 if (branch == 0) == self.female else -1
            delta = sign * 4 * (edit - empty)
            for channel in delta[0]:
                limit = torch.quantile(channel.abs().flatten(), 0.6)
                channel[channel.abs() < limit] = 0
            total += delta
        total = total + 0.5 * self.momentum
        self.momentum = 0.6 * self.momentum + 0.4 * total
        guided = empty + step.sampling.guidance * (own - empty)
        return guided if step.number < 1 else guided + total


def test_vectorised_guidance_is_that_of_a_loop(
    world: World, batch: Batch, both_ways: Callable[[World, Intervention], Images]
) -> None:
    settings = settings_of("fair_diffusion", lookup="all", threshold=0.6, warmup=1 / 3)
    images = both_ways(world, apply(world, settings, GENDER, fit(world, settings, GENDER)))
    torch.testing.assert_close(images.together, images.alone, atol=1e-4, rtol=0)
    drawn = [cells(GENDER)[cell]["gender"] for cell in assign(GENDER, batch, "quota")]
    assert set(drawn) == {"female", "male"}
    for i in range(8):
        one = Batch([batch.prompts[i]], [batch.index[i]], 4, batch.seed)
        slow = render(world.pipeline, Slowly(drawn[i] == "female"), one, [i], STEPS, GUIDANCE, "longest")
        torch.testing.assert_close(images.together[i : i + 1], slow, atol=1e-4, rtol=0)


def test_unknown_concepts_are_left_as_they_are(
    world: World, both_ways: Callable[[World, Intervention], Images]
) -> None:
    settings = settings_of("fair_diffusion")
    images = both_ways(world, apply(world, settings, GENDER, fit(world, settings, GENDER)))
    assert torch.equal(images.together, both_ways(world, Intervention()).together)


def test_known_and_unknown_concepts_in_one_batch(world: World) -> None:
    settings = settings_of("fair_diffusion", warmup=0.0)
    method = apply(world, settings, GENDER, fit(world, settings, GENDER))
    batch = Batch([prompt("cook"), prompt("doctor")], [0, 0], 4, 0)
    images, original = (
        render(world.pipeline, it, batch, [1, 2], STEPS, GUIDANCE, "longest") for it in (method, Intervention())
    )
    assert (images[0] - original[0]).abs().max() > 1e-3
    torch.testing.assert_close(images[1], original[1], atol=1e-5, rtol=0)


def test_others_are_removed_in_one_prompt() -> None:
    method = FairDiffusion({"race": UNIFORM["race"]}, settings_of("fair_diffusion"), set())
    towards, away = method.edits["race", "asian"]
    assert method.branches[towards] == "asian person"
    assert method.branches[away] == "white person, black person, indian person"
