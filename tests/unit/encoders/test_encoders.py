"""Encoders over tiny random models, written to directories as real ones are."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from distalign.encoders import ClipEncoder, DinoEncoder, ImageEncoder
from distalign.encoders.clip import save_clip
from distalign.encoders.interface import Preprocess
from distalign.errors import UserError
from helpers.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def clip_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = tiny_tokenizer(16)
    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
        "text_cfg": {
            "context_length": 16,
            "vocab_size": len(tokenizer),
            "width": 16,
            "heads": 2,
            "layers": 1,
            "hf_tokenizer_name": "local",
        },
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    directory = tmp_path_factory.mktemp("models") / "clip"
    save_clip(directory, model, config, {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}, tokenizer)
    return directory


@pytest.fixture(scope="module")
def dino_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8)
    directory = tmp_path_factory.mktemp("models") / "dino"
    Dinov2Model(config).save_pretrained(directory)
    return directory


@pytest.fixture
def images() -> Tensor:
    return (torch.rand(3, 3, 20, 20) * 2 - 1).requires_grad_()


def check_images(encoder: ImageEncoder, images: Tensor) -> None:
    vectors = encoder.encode_images(images)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(vectors[:1], encoder.encode_images(images[:1]))
    vectors[:, 0].sum().backward()
    assert images.grad is not None
    assert (images.grad.abs().sum((1, 2, 3)) > 0).all()


def test_clip_images(clip_directory: Path, images: Tensor) -> None:
    encoder = ClipEncoder(clip_directory)
    assert encoder.preprocess.size == 16
    assert encoder.preprocess.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    check_images(encoder, images)


def test_clip_texts(clip_directory: Path) -> None:
    encoder = ClipEncoder(clip_directory)
    vectors = encoder.encode_texts(["a doctor", "a plumber", "a doctor"])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(vectors[0], vectors[2])
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3


def test_clip_is_what_was_saved(clip_directory: Path, images: Tensor) -> None:
    model = open_clip.create_model(f"local-dir:{clip_directory}").eval()
    inputs = (F.interpolate(images.detach(), (16, 16), mode="bilinear") / 2 + 0.5 - 0.5) / 0.25
    expected = F.normalize(model.encode_image(inputs), dim=1)
    torch.testing.assert_close(ClipEncoder(clip_directory).encode_images(images), expected)


def test_dino_images(dino_directory: Path, images: Tensor) -> None:
    encoder = DinoEncoder(dino_directory)
    assert encoder.preprocess.size == 16
    check_images(encoder, images)


def test_dino_takes_the_cls_output(dino_directory: Path, images: Tensor) -> None:
    encoder = DinoEncoder(dino_directory)
    model = Dinov2Model.from_pretrained(dino_directory).eval()
    pooled = model(pixel_values=encoder.preprocess(images)).pooler_output
    torch.testing.assert_close(encoder.encode_images(images), F.normalize(pooled, dim=1))
    torch.testing.assert_close(encoder.features(images), pooled)


def test_dino_reads_its_preprocessor(dino_directory: Path, tmp_path: Path) -> None:
    for file in dino_directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    crop = {"crop_size": {"height": 24, "width": 24}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(crop))
    assert DinoEncoder(tmp_path).preprocess.size == 24


def test_lower_precision_answers_in_float32(dino_directory: Path, images: Tensor) -> None:
    half = DinoEncoder(dino_directory).to("cpu", torch.bfloat16).encode_images(images)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, DinoEncoder(dino_directory).encode_images(images), atol=0.05, rtol=0)


@pytest.mark.parametrize("antialias", [False, True])
def test_antialias_is_a_setting(antialias: bool) -> None:
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    preprocess = Preprocess(8, (0, 0, 0), (1, 1, 1), antialias)
    expected = F.interpolate((images + 1) / 2, (8, 8), mode="bilinear", antialias=antialias)
    torch.testing.assert_close(preprocess(images), expected)


@pytest.mark.parametrize("encoder", [ClipEncoder, DinoEncoder])
def test_other_directories_are_named(encoder: type, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json is missing"):
        encoder(tmp_path)
