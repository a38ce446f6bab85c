"""Pipelines of other structures and in the layout of the published repositories, through our loader and sampler."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from distalign.diffusion.noise import initial_noise
from distalign.diffusion.pipeline import Pipeline, load_pipeline
from distalign.diffusion.sampler import generate
from distalign.diffusion.schedule import SOLVER
from distalign.diffusion.text import encode_prompts
from distalign.errors import UserError
from distalign.store.pretrained import write_record
from distalign.weights import obtain
from helpers.hub import REVISION, Repository, serve, use
from helpers.published import as_published
from helpers.tiny import PROMPTS, sd2_shaped_pipeline, sd15_shaped_pipeline, tiny_pipeline

KINDS = ("sd15", "sd21-base", "sd21")


@pytest.fixture(scope="module", params=KINDS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """Its kind, a pipeline as diffusers saves it today, and the same as the hub has it."""
    kind = request.param
    folder = tmp_path_factory.mktemp(kind)
    if kind == "sd15":
        path = sd15_shaped_pipeline(folder / "today")
    elif kind == "sd21-base":
        path = sd2_shaped_pipeline(folder / "today")
    else:
        path = sd2_shaped_pipeline(folder / "today", 12, "v_prediction")
    shutil.copytree(path, folder / "published")
    pad = "<|endoftext|>" if kind == "sd15" else "!"
    published = as_published(folder / "published", "v_prediction" if kind == "sd21" else "epsilon", pad)
    return kind, path, published


@pytest.fixture
def obtained(saved: tuple[str, Path, Path], tmp_path: Path) -> Path:
    obtain({"source": "directory", "path": str(saved[2])}, tmp_path / "backbone", tmp_path)
    return tmp_path / "backbone"


def diffusers_own(path: Path, pipeline: Pipeline) -> StableDiffusionPipeline:
    """The pipeline of diffusers over the same files and the paper's solver."""
    reference = StableDiffusionPipeline(
        unet=UNet2DConditionModel.from_pretrained(path / "unet"),
        vae=AutoencoderKL.from_pretrained(path / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(path / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(path / "tokenizer"),
        scheduler=DPMSolverMultistepScheduler.from_config(pipeline.scheduler_config, **SOLVER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    reference.set_progress_bar_config(disable=True)
    return reference


def test_published_layout_gives_diffusers_images(saved: tuple[str, Path, Path], obtained: Path) -> None:
    kind, today, _ = saved
    pipeline = load_pipeline(obtained)
    assert pipeline.image_size == (96 if kind == "sd21" else 64)
    ours = generate(pipeline, PROMPTS[:1], [1], 3, 4.0, 1, "max_length")
    reference = diffusers_own(today, pipeline)
    reference.tokenizer.pad_token = pipeline.tokenizer.pad_token
    noise = initial_noise(pipeline.latent_shape, [1])
    theirs = reference(PROMPTS[:1], latents=noise, num_inference_steps=3, guidance_scale=4.0, output_type="pt").images
    torch.testing.assert_close(ours, theirs * 2 - 1, atol=1e-4, rtol=0)
    assert ours.std() > 0.01


def test_published_layout_has_the_same_tensors(saved: tuple[str, Path, Path], obtained: Path) -> None:
    kind, today, _ = saved
    ours, plain = load_pipeline(obtained), load_pipeline(today)
    for mine, theirs in zip(ours.modules, plain.modules, strict=True):
        expected = theirs.state_dict()
        assert mine.state_dict().keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in mine.state_dict().items())
    assert ours.vae.config["scaling_factor"] == 0.18215
    assert len(ours.text_encoder.encoder.layers) == (12 if kind == "sd15" else 23)
    assert ours.scheduler_config.get("prediction_type", "epsilon") == ("v_prediction" if kind == "sd21" else "epsilon")
    assert ours.tokenizer.pad_token_id == (ours.tokenizer.eos_token_id if kind == "sd15" else 0)


def test_only_what_is_needed_is_linked(saved: tuple[str, Path, Path], obtained: Path) -> None:
    linked = {path.relative_to(obtained).as_posix() for path in obtained.rglob("*") if path.is_file()}
    assert {path.rpartition(".")[2] for path in linked} == {"json", "safetensors", "txt"}
    assert not any(path.startswith("safety_checker") or "fp16" in path for path in linked)


def test_padding_token_of_the_longest_regime_is_masked(obtained: Path) -> None:
    pipeline = load_pipeline(obtained)
    together = encode_prompts(pipeline, PROMPTS, "longest").embeddings[:1]
    alone = encode_prompts(pipeline, PROMPTS[:1], "longest").embeddings
    torch.testing.assert_close(together[:, : alone.shape[1]], alone)


def test_half_precision_files_by_one_key(saved: tuple[str, Path, Path], tmp_path: Path) -> None:
    obtain({"source": "directory", "path": str(saved[2]), "variant": "fp16"}, tmp_path / "half", tmp_path)
    half = tmp_path / "half/unet/diffusion_pytorch_model.safetensors"
    assert half.resolve().name == "diffusion_pytorch_model.fp16.safetensors"
    tensors = load_file(half)
    loaded = load_pipeline(tmp_path / "half").unet
    assert loaded.dtype == torch.float32
    assert all(torch.equal(tensor, tensors[name].float()) for name, tensor in loaded.state_dict().items())
    as_it_is = load_pipeline(tmp_path / "half", dtype=torch.float16)
    assert [as_it_is.unet.dtype, as_it_is.vae.dtype] == [torch.float16] * 2
    assert as_it_is.text_encoder.dtype == torch.float32


def test_pipeline_of_a_hub_is_loaded_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_published(tiny_pipeline(tmp_path / "published"))
    files = {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with serve() as hub:
        hub.repositories["owner/name"] = Repository(files)
        use(monkeypatch, hub, tmp_path / "cache")
        obtain({"source": "hub", "id": "owner/name", "revision": REVISION}, tmp_path / "backbone", tmp_path)
    fetched, plain = load_pipeline(tmp_path / "backbone"), load_pipeline(path)
    images = [generate(pipeline, PROMPTS[:1], [1], 2, 4.0, 1) for pipeline in (fetched, plain)]
    assert torch.equal(*images)
    assert not any("fp16" in file or ".bin" in file or "safety" in file for file in hub.downloads())


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    return tiny_pipeline(tmp_path / "backbone")


@pytest.mark.parametrize("name", ["StableDiffusionXLPipeline", "FluxPipeline"])
def test_other_pipelines_are_refused_when_they_are_obtained_and_when_loaded(
    backbone: Path, tmp_path: Path, name: str
) -> None:
    index = json.loads((backbone / "model_index.json").read_text())
    (backbone / "model_index.json").write_text(json.dumps(index | {"_class_name": name}))
    message = f"model_index.json says {name}; only StableDiffusionPipeline is supported"
    with pytest.raises(UserError, match=message):
        load_pipeline(backbone)
    with pytest.raises(UserError, match=message):
        obtain({"source": "directory", "path": "backbone"}, tmp_path / "out", tmp_path)


def test_u_nets_that_take_more_than_latents_are_refused(backbone: Path) -> None:
    config = json.loads((backbone / "unet/config.json").read_text())
    (backbone / "unet/config.json").write_text(json.dumps(config | {"in_channels": 9}))
    file = backbone / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.weight"] = torch.zeros(8, 9, 3, 3)
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(UserError, match="its U-Net takes 9 channels, not the 4 of its latents"):
        load_pipeline(backbone)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_cut_and_missing_weights_are_named(backbone: Path, part: str) -> None:
    (file,) = (backbone / part).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match=f"backbone/{part}: cannot be read as"):
        load_pipeline(backbone)
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(UserError, match=f"backbone/{part}: cannot be read as"):
        load_pipeline(backbone)


def test_tensor_that_is_missing_is_not_left_at_random(backbone: Path) -> None:
    file = backbone / "text_encoder/model.safetensors"
    tensors = load_file(file)
    del tensors["final_layer_norm.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"1 tensors of CLIPTextModel are missing .*: final_layer_norm\.weight"):
        load_pipeline(backbone)


def test_fetched_files_are_looked_at_before_they_are_loaded(backbone: Path) -> None:
    write_record(backbone, {"id": "owner/name"}, {"vae/config.json": "0" * 64})
    load_pipeline(backbone)
    with (backbone / "vae/config.json").open("a") as file:
        file.write("\n")
    with pytest.raises(UserError, match=r"vae/config\.json: \d+ bytes instead of"):
        load_pipeline(backbone)
