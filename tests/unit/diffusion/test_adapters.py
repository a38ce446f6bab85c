from pathlib import Path

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from torch import Tensor, nn

from distalign.diffusion.adapters import MovingAverage, attach_adapter, load_adapter, save_adapter
from distalign.diffusion.noise import initial_noise
from distalign.diffusion.pipeline import load_pipeline
from distalign.diffusion.sampler import generate
from distalign.diffusion.schedule import SOLVER
from distalign.diffusion.text import encode_prompts
from distalign.errors import UserError
from helpers.tiny import PROMPTS

SEEDS = [5, 6]


def render(path: Path, adapter: Path | None = None) -> Tensor:
    pipeline = load_pipeline(path)
    if adapter is not None:
        load_adapter(pipeline, adapter)
    return generate(pipeline, PROMPTS, SEEDS, 3, 4.0, 2, "max_length")


def diffusers_render(path: Path, adapter: Path, before_prompt: str) -> Tensor:
    """The same images through diffusers' own pipeline and loaders, as a user would make them."""
    pipeline = StableDiffusionPipeline.from_pretrained(path, local_files_only=True)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, **SOLVER)
    pipeline.set_progress_bar_config(disable=True)
    if before_prompt:
        pipeline.load_textual_inversion(adapter)
    else:
        pipeline.load_lora_weights(adapter)
    noise = initial_noise((4, 4, 4), SEEDS)
    prompts = [before_prompt + prompt for prompt in PROMPTS]
    made = pipeline(prompts, latents=noise, num_inference_steps=3, guidance_scale=4.0, output_type="pt")
    return made.images * 2 - 1


@pytest.mark.parametrize(
    "train", [["text_encoder"], ["unet"], ["text_encoder", "unet"], ["prompt_prefix"]], ids="+".join
)
def test_saved_adapter_gives_the_same_images_here_and_in_diffusers(
    tiny_backbone: Path, tmp_path: Path, train: list[str]
) -> None:
    pipeline = load_pipeline(tiny_backbone)
    adapter = attach_adapter(pipeline, train, rank=2, prefix_tokens=3, seed=1)
    for i, parameter in enumerate(adapter.parameters.values()):
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
    expected = generate(pipeline, PROMPTS, SEEDS, 3, 4.0, 2, "max_length")
    save_adapter(adapter, tmp_path / "adapter")

    assert (expected - render(tiny_backbone)).abs().max() > 1e-2
    assert torch.allclose(render(tiny_backbone, tmp_path / "adapter"), expected, atol=1e-5)
    through_diffusers = diffusers_render(
        tiny_backbone, tmp_path / "adapter", "<distalign> " if train == ["prompt_prefix"] else ""
    )
    assert torch.allclose(through_diffusers, expected, atol=1e-4)


def test_a_prefix_that_leaves_no_room_for_the_prompt_is_refused(tiny_backbone: Path) -> None:
    tokenizer = load_pipeline(tiny_backbone).tokenizer
    room = tokenizer.model_max_length - len(tokenizer(PROMPTS[0])["input_ids"])
    for tokens, fits in ((room, True), (room + 1, False)):
        pipeline = load_pipeline(tiny_backbone)
        attach_adapter(pipeline, ["prompt_prefix"], rank=2, prefix_tokens=tokens, seed=1)
        if fits:
            assert encode_prompts(pipeline, PROMPTS[:1]).embeddings.shape[1] == tokenizer.model_max_length
        else:
            with pytest.raises(UserError, match=f"prefix_tokens: .* set it to {room} at most"):
                encode_prompts(pipeline, PROMPTS[:1])


def test_a_fresh_lora_changes_nothing_and_depends_on_its_seed_only(tiny_backbone: Path) -> None:
    before = render(tiny_backbone)
    adapters = []
    for state in (1, 2):
        torch.manual_seed(state)
        pipeline = load_pipeline(tiny_backbone)
        adapters.append(attach_adapter(pipeline, ["text_encoder", "unet"], rank=2, prefix_tokens=0, seed=3))
        assert torch.equal(generate(pipeline, PROMPTS, SEEDS, 3, 4.0, 2, "max_length"), before)
    for name, value in adapters[0].parameters.items():
        assert torch.equal(value, adapters[1].parameters[name])
    assert len(adapters[0].parameters) == 2 * 6 * 2 + 4 * 2 * 4 * 2


def test_nothing_to_load_and_nothing_known_to_train(tiny_backbone: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(tiny_backbone)
    with pytest.raises(UserError, match="no adapter"):
        load_adapter(pipeline, tmp_path)
    with pytest.raises(UserError, match="unknown part 'vae'"):
        attach_adapter(pipeline, ["vae"], 2, 0, 0)


def test_moving_average_ramps_up() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    average = MovingAverage({"p": parameter}, decay=0.996)
    parameter.data.fill_(1.0)
    average.update()
    assert average.shadow["p"].item() == pytest.approx(0.9)  # decay 1/10
    average.update()
    assert average.shadow["p"].item() == pytest.approx(1 - 0.1 * 2 / 11)
    average.swap()
    assert parameter.item() == pytest.approx(1 - 0.1 * 2 / 11)
    assert average.shadow["p"].item() == 1
