from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from distalign.diffusion.adapters import add_prefix
from distalign.diffusion.intervention import Intervention
from distalign.diffusion.text import Padding, encode_prompts, end_positions
from distalign.methods.assignment import cells
from distalign.methods.debiasvl import Projected, apply, end_states, fit, projection
from distalign.methods.world import World
from distalign.prompts.phrases import say

from .conftest import UNIFORM, Images, settings_of

BOTH = {"gender": UNIFORM["gender"], "race": UNIFORM["race"]}


def test_one_direction_is_shrunk_and_the_others_stay() -> None:
    direction = torch.tensor([[3.0, 4.0, 0.0]], dtype=torch.float64)
    matrix = projection(direction.repeat(5, 1), 2.0)
    torch.testing.assert_close(matrix @ direction[0], direction[0] / (1 + 2 * 25))
    for other in ([0.0, 0.0, 1.0], [4.0, -3.0, 0.0]):
        across = torch.tensor(other, dtype=torch.float64)
        torch.testing.assert_close(matrix @ across, across)


def test_it_minimises_its_objective() -> None:
    differences = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = projection(differences, 3.0).requires_grad_()
    mean_square = (differences @ matrix.T).square().sum() / len(differences)
    # P = (I + λM)^-1 is where d/dP [tr(P P^T) - 2 tr P + λ/|S| Σ |P d|^2] = 0.
    (matrix.square().sum() - 2 * matrix.trace() + 3.0 * mean_square).backward()
    assert matrix.grad is not None
    assert matrix.grad.abs().max() < 1e-12


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_prompts_that_name_classes_come_together(world: World, padding: Padding) -> None:
    world.padding = padding
    fitted = fit(world, settings_of("debiasvl", strength=1e6, concepts=1), {"gender": UNIFORM["gender"]})
    texts = [say(world.train[0], {"gender": name}).text for name in ("female", "male")]
    first, second = end_states(world.pipeline, texts, world.padding).float()
    gap = fitted["projection"] @ (first - second)
    assert gap.norm() < 1e-3 * (first - second).norm()


def test_the_end_of_a_prompt_is_where_the_encoder_pools(world: World) -> None:
    texts = ["a cook", "a much longer prompt"]
    alone = [encode_prompts(world.pipeline, [text]).embeddings[0, -1] for text in texts]
    paddings: tuple[Padding, ...] = ("longest", "max_length")
    for padding in paddings:
        states = end_states(world.pipeline, texts, padding).float()
        for state, end in zip(states, alone, strict=True):
            torch.testing.assert_close(state, end / end.norm(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_the_end_is_found_behind_a_learned_prefix_and_in_a_cut_text(world: World, padding: Padding) -> None:
    pipeline = world.pipeline
    add_prefix(pipeline, torch.randn(3, 16, generator=torch.Generator().manual_seed(0)))
    assert min(pipeline.prefix_ids) > pipeline.tokenizer.eos_token_id  # the largest id is no longer the end
    texts = ["a cook", "a judge of many things who does not fit into the length of the model"]
    longest = pipeline.tokenizer.model_max_length
    assert end_positions(pipeline, texts).tolist() == [1 + 3 + len("acook"), longest - 1]
    short = pipeline.tokenizer("a cook")["input_ids"]
    ids = torch.tensor([[short[0], *pipeline.prefix_ids, *short[1:]]])
    expected = pipeline.text_encoder(input_ids=ids).last_hidden_state[0, -1]
    found = end_states(pipeline, texts, padding)[0].float()
    torch.testing.assert_close(found, expected / expected.norm(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("attributes", "pairs"), [(["gender"], 1), (["race"], 6), (["gender", "race"], 28)])
def test_all_pairs_of_cells_of_all_concepts_count_alike(world: World, attributes: list[str], pairs: int) -> None:
    target = {name: UNIFORM[name] for name in attributes}
    moments, count = torch.zeros(16, 16, dtype=torch.float64), 0
    for prompt in world.train:
        texts = [say(prompt, cell).text for cell in cells(target)]
        ends = [encode_prompts(world.pipeline, [text]).embeddings[0, -1].double() for text in texts]
        for a in range(len(ends)):
            for b in range(a):
                gap = ends[a] / ends[a].norm() - ends[b] / ends[b].norm()
                moments += torch.outer(gap, gap)
                count += 1
    assert count == 3 * pairs
    matrix = fit(world, settings_of("debiasvl"), target)["projection"].double()
    expected = torch.linalg.inv(torch.eye(16, dtype=torch.float64) + 500 * moments / count)
    torch.testing.assert_close(matrix, expected, atol=1e-5, rtol=0)


def test_half_precision_stays_half_precision(world: World) -> None:
    conditioning = encode_prompts(world.pipeline, ["a cook"])
    half = replace(conditioning, embeddings=conditioning.embeddings.bfloat16())
    before = half.embeddings.clone()
    mapped = Projected(torch.eye(16) / 2).embed(half).embeddings
    assert mapped.dtype == torch.bfloat16
    torch.testing.assert_close(mapped, before / 2)
    assert torch.equal(half.embeddings, before)


def test_the_empty_prompt_is_left_alone(world: World) -> None:
    conditioning = encode_prompts(world.pipeline, ["a cook"])
    mapped = Projected(torch.zeros(16, 16)).embed(conditioning)
    assert mapped.embeddings.abs().max() == 0
    assert mapped.unconditional is conditioning.unconditional


def test_no_strength_changes_nothing(world: World, both_ways: Callable[[World, Intervention], Images]) -> None:
    settings = settings_of("debiasvl", strength=1e-12)
    images = both_ways(world, apply(world, settings, BOTH, fit(world, settings, BOTH)))
    torch.testing.assert_close(images.together, both_ways(world, Intervention()).together, atol=1e-4, rtol=0)
