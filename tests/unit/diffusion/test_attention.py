"""Keys and values computed once per prompt: the same predictions, images and gradients as computed at every step."""

from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from distalign.alignment.gradient import GradientSettings, StepChoice, accumulate_gradients, accumulate_renoised
from distalign.diffusion.adapters import Adapter, attach_adapter
from distalign.diffusion.attention import PROJECTIONS, PromptAttention, keep_keys
from distalign.diffusion.intervention import Batch, Intervention, render
from distalign.diffusion.noise import initial_noise
from distalign.diffusion.pipeline import Pipeline, load_pipeline
from distalign.diffusion.sampler import sample
from distalign.diffusion.text import encode_prompts
from distalign.methods.cross_attention import EditedWeights, layers
from distalign.prompts import Prompt
from helpers.tiny import PROMPTS

STEPS, GUIDANCE, INDEX = 3, 3.0, torch.tensor([0, 1, 1])


def keeping(pipeline: Pipeline, keeps: bool) -> Pipeline:
    """What `load_pipeline` does on a GPU."""
    keep_keys(pipeline.unet)
    pipeline.keeps_keys = keeps
    return pipeline


def count_rows(pipeline: Pipeline) -> list[int]:
    rows: list[int] = []
    for name, module in pipeline.unet.named_modules():
        if name.endswith(tuple(f"attn2.{kind}" for kind in PROJECTIONS)):
            module.register_forward_pre_hook(lambda module, arguments: rows.append(len(arguments[0])))
    return rows


@pytest.mark.parametrize("guidance", [1.0, GUIDANCE])
def test_sampling_computes_them_once_per_prompt(tiny_backbone: Path, guidance: float) -> None:
    found = {}
    for keeps in (False, True):
        pipeline = keeping(load_pipeline(tiny_backbone, dtype=torch.float64), keeps)
        rows, conditioning = count_rows(pipeline), encode_prompts(pipeline, PROMPTS)
        noise = initial_noise(pipeline.latent_shape, [1, 2, 3]).double()
        found[keeps] = sample(pipeline, noise, conditioning, INDEX, STEPS, guidance, 2).z0
        modules = len(layers(pipeline))
        if keeps:  # both prompts, and the empty one padded to the length of each
            assert rows == [4] * modules
        else:
            assert len(rows) == 2 * STEPS * modules
    torch.testing.assert_close(found[True], found[False], rtol=1e-10, atol=1e-12)


def gradients(adapter: Adapter, settings: GradientSettings) -> Tensor:
    pipeline = adapter.pipeline
    conditioning = encode_prompts(pipeline, PROMPTS)
    leaf = conditioning.leaf()
    noise = initial_noise(pipeline.latent_shape, [1, 2, 3]).double()
    graph_steps = tuple(range(STEPS)) if settings.keep_graph else ()
    rollout = sample(
        pipeline, noise, leaf, INDEX, STEPS, GUIDANCE, 2, keep=not settings.keep_graph, graph_steps=graph_steps,
        through_latents=settings.weights == "exact",
    )  # fmt: skip
    choice = StepChoice(tuple(range(STEPS)), (1.0,) * STEPS)
    accumulate_gradients(pipeline, rollout, rollout.z0.sin(), leaf, INDEX, GUIDANCE, settings, choice, 2)
    accumulate_renoised(pipeline, rollout, noise, torch.sin, leaf, INDEX, GUIDANCE, settings, 2)
    conditioning.backward(leaf)
    return torch.cat([parameter.grad.flatten() for parameter in adapter.parameters.values()])


@pytest.mark.parametrize("keep_graph", [False, True], ids=["flat", "keep_graph"])
@pytest.mark.parametrize("train", [["text_encoder", "unet"], ["prompt_prefix"]], ids="+".join)
@pytest.mark.parametrize("weights", ["adjusted", "exact"])
def test_gradients_of_every_adapter_pass_them(
    tiny_backbone: Path, train: list[str], keep_graph: bool, weights: str
) -> None:
    found = {}
    for keeps in (False, True):
        pipeline = keeping(load_pipeline(tiny_backbone, dtype=torch.float64), keeps)
        adapter = attach_adapter(pipeline, train, rank=2, prefix_tokens=2, seed=1)
        for i, parameter in enumerate(adapter.parameters.values()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
            parameter.data = parameter.data.double() + 0.2 * noise
        found[keeps] = gradients(adapter, GradientSettings(weights, keep_graph=keep_graph))
    assert (found[True] - found[False]).norm() <= 1e-9 * found[False].norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_in_half_precision_they_are_collected_in_float32(tiny_backbone: Path, dtype: torch.dtype) -> None:
    found = {}
    for precision in (torch.float32, dtype):
        pipeline = keeping(load_pipeline(tiny_backbone, dtype=precision), True)
        adapter = attach_adapter(pipeline, ["text_encoder", "unet"], 2, 0, 1)
        conditioning = encode_prompts(pipeline, PROMPTS)
        leaf = conditioning.leaf()
        noise = initial_noise(pipeline.latent_shape, [1, 2, 3])
        rollout = sample(pipeline, noise, leaf, INDEX, STEPS, GUIDANCE, 2, keep=True)
        choice = StepChoice(tuple(range(STEPS)), (1.0,) * STEPS)
        settings = GradientSettings("adjusted")
        accumulate_gradients(pipeline, rollout, noise.sin(), leaf, INDEX, GUIDANCE, settings, choice, 2)
        conditioning.backward(leaf)
        assert leaf.embeddings.grad.dtype == torch.float32
        up = [p.grad.flatten() for name, p in adapter.parameters.items() if "lora_B" in name]
        found[precision] = torch.cat(up)
    assert (found[dtype] - found[torch.float32]).norm() < 0.1 * found[torch.float32].norm()


def test_methods_that_edit_the_projections_are_followed(tiny_backbone: Path) -> None:
    prompts = [Prompt(text, text, text, "test") for text in PROMPTS]
    batch = Batch([prompts[0], prompts[1], prompts[1]], [0, 0, 1], 2, 5)
    found = {}
    for keeps in (False, True):
        pipeline = keeping(load_pipeline(tiny_backbone), keeps)
        edited = EditedWeights({name: weight * 3 for name, weight in layers(pipeline).items()})
        for name, method in {"plain": Intervention(), "edited": edited, "plain again": Intervention()}.items():
            found[name, keeps] = render(pipeline, method, batch, [1, 2, 3], STEPS, GUIDANCE, "longest")
    for name in ("plain", "edited"):
        torch.testing.assert_close(found[name, True], found[name, False], rtol=1e-4, atol=1e-5)
    assert torch.equal(found["plain", True], found["plain again", True])
    assert (found["plain", True] - found["edited", True]).abs().max() > 1e-3


def test_all_attention_is_torch_s_fused_one(tiny_backbone: Path) -> None:
    pipeline = keeping(load_pipeline(tiny_backbone), True)
    assert {type(processor) for processor in pipeline.unet.attn_processors.values()} == {PromptAttention}
    assert {type(processor) for processor in pipeline.vae.attn_processors.values()} == {AttnProcessor2_0}
    assert pipeline.text_encoder.config._attn_implementation == "sdpa"
