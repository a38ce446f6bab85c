"""Closed-form edits of keys and values, and sampling with them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from distalign.diffusion.intervention import Intervention
from distalign.methods.cross_attention import EditedWeights, edit, layers, token_ids, token_states
from distalign.methods.fitting import load_method, save_method
from distalign.methods.world import World

from .conftest import UNIFORM, Images


def test_keys_and_values_of_every_cross_attention_are_found(world: World) -> None:
    modules = [name for name, _ in world.pipeline.unet.named_modules() if name.endswith("attn2")]
    found = layers(world.pipeline)
    assert len(modules) >= 4
    assert set(found) == {f"{name}.{kind}.weight" for name in modules for kind in ("to_k", "to_v")}


def test_the_closed_form_minimises_its_objective() -> None:
    torch.manual_seed(0)
    weight, states, scales = torch.randn(5, 7), torch.randn(4, 7), torch.tensor([1.0, 0.3, 2.0, 0.5])
    matrix = torch.randn(2, 7, 5, dtype=torch.float64)

    def change(own: Tensor) -> Tensor:
        return torch.einsum("mdo,od->mo", matrix, own)

    new = edit({"a": weight.double()}, states, scales, 0.7, change)["a"].requires_grad_()
    own, c = weight.double(), states.double()
    wanted = c @ own.T
    wanted[:2] += change(own)
    objective = (scales * ((c @ new.T - wanted) ** 2).sum(1)).sum() + 0.7 * ((new - own) ** 2).sum()
    (gradient,) = torch.autograd.grad(objective, new)
    assert gradient.abs().max() < 1e-12
    assert (new - own).abs().max() > 0.1


def test_kept_states_keep_their_values() -> None:
    torch.manual_seed(0)
    weight, states = torch.randn(5, 7, dtype=torch.float64), torch.randn(3, 7)

    def moved(scale: float) -> Tensor:
        scales = torch.tensor([1.0, scale, scale])
        new = edit({"a": weight}, states, scales, 0.5, lambda own: torch.ones(1, 5, dtype=torch.float64))["a"]
        return ((new - weight) @ states.double().T).norm(dim=0)

    free, kept = moved(0.0), moved(1e6)
    assert free[1:].min() > 0.01
    assert kept[1:].max() < 1e-4
    assert kept[0] > 0.5


def test_without_a_change_weights_are_the_same_to_the_bit_and_keep_their_type() -> None:
    weight = torch.randn(5, 7).half()
    new = edit({"a": weight}, torch.randn(3, 7), torch.ones(3), 0.5, lambda own: own.new_zeros(3, 5))["a"]
    assert new.dtype == torch.float16
    assert torch.equal(new, weight)
    assert new is not weight


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_sampling_is_with_the_edited_weights_and_leaves_the_model_as_it_was(
    world: World, both_ways: Callable[[World, Intervention], Images], tmp_path: Path, padding: Any
) -> None:
    world.padding = padding
    own = {name: weight.detach().clone() for name, weight in layers(world.pipeline).items()}
    fitted = {name: -2 * weight for name, weight in own.items()}
    before = both_ways(world, Intervention())
    save_method(tmp_path / "adapter", {"method": "uce", "align": {"gender": UNIFORM["gender"]}}, {}, fitted)
    intervention = load_method(tmp_path / "adapter", world)
    images = both_ways(world, intervention)
    torch.testing.assert_close(images.together, images.alone, atol=2e-5, rtol=0)
    assert (images.together - before.together).abs().max() > 1e-3
    assert torch.equal(both_ways(world, Intervention()).together, before.together)
    sampling: Any = SimpleNamespace(pipeline=world.pipeline)
    with intervention.activations(sampling):
        assert all(torch.equal(weight, fitted[name]) for name, weight in layers(world.pipeline).items())
    assert all(torch.equal(weight, own[name]) for name, weight in layers(world.pipeline).items())


def test_weights_come_back_after_a_failure(world: World) -> None:
    name, own = next(iter(layers(world.pipeline).items()))
    before = own.detach().clone()
    sampling: Any = SimpleNamespace(pipeline=world.pipeline)
    with pytest.raises(KeyboardInterrupt), EditedWeights({name: before + 1}).activations(sampling):
        assert not torch.equal(own, before)
        raise KeyboardInterrupt
    assert torch.equal(own, before)


def test_states_are_of_real_tokens_whatever_else_is_encoded(world: World) -> None:
    texts = ["a cook", "", "a photo of a judge"]
    together = token_states(world.pipeline, texts)
    for text, states in zip(texts, together, strict=True):
        assert states.shape == (len(token_ids(world.pipeline, text)), 16)
        torch.testing.assert_close(states, token_states(world.pipeline, [text])[0], atol=1e-5, rtol=0)
