"""Encoders in the layouts of their published repositories, with the structure of the real ones at reduced width."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distalign.encoders import ClipEncoder, DinoEncoder
from distalign.errors import UserError
from distalign.store.pretrained import write_record
from distalign.weights import obtain
from helpers.encoders import CLIPS, MEAN, clip_repository, dino_repository


@pytest.fixture(params=CLIPS, name="clip")
def _clip(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return clip_repository(tmp_path / "repository", request.param)


def test_clip_of_open_clip(clip: Path, tmp_path: Path) -> None:
    obtain({"source": "directory", "path": str(clip)}, tmp_path / "clip", tmp_path)
    assert sorted(p.name for p in (tmp_path / "clip").iterdir()) == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
    ]
    encoder = ClipEncoder(tmp_path / "clip")
    assert (encoder.preprocess.size, encoder.preprocess.antialias) == (28, False)
    torch.testing.assert_close(encoder.preprocess.mean.flatten(), torch.tensor(MEAN))
    texts = encoder.encode_texts(["a photo of the face of a doctor, a person", "a plumber"])
    images = encoder.encode_images(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert texts.shape == images.shape == (2, 24)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(2))
    assert (texts[0] - texts[1]).abs().max() > 1e-3


def test_clip_that_is_cut_off_or_of_another_size_is_named(clip: Path) -> None:
    weights = clip / "open_clip_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(UserError, match="repository: cannot be read as an open_clip model"):
        ClipEncoder(clip)
    weights.write_bytes(whole)
    config = json.loads((clip / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["layers"] = 4
    (clip / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="repository: cannot be read as an open_clip model"):
        ClipEncoder(clip)


def dino_features(tensors: dict[str, Tensor], inputs: Tensor, heads: int) -> Tensor:
    """DINOv2 written down once more, from the published tensors: its CLS output."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps=1e-6)

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    def attend(x: Tensor) -> Tensor:
        query, key, value = (split(linear(f"{layer}.attention.attention.{it}", x)) for it in ("query", "key", "value"))
        weights = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(-1)
        return linear(f"{layer}.attention.output.dense", (weights @ value).transpose(1, 2).flatten(2))

    def perceive(x: Tensor) -> Tensor:
        if f"{layer}.mlp.fc1.weight" in tensors:
            return linear(f"{layer}.mlp.fc2", F.gelu(linear(f"{layer}.mlp.fc1", x)))
        gate, up = linear(f"{layer}.mlp.weights_in", x).chunk(2, -1)
        return linear(f"{layer}.mlp.weights_out", F.silu(gate) * up)

    projection = "embeddings.patch_embeddings.projection"
    patches = F.conv2d(inputs, tensors[f"{projection}.weight"], tensors[f"{projection}.bias"], stride=14)
    start = tensors["embeddings.cls_token"].expand(len(inputs), -1, -1)
    x = torch.cat([start, patches.flatten(2).transpose(1, 2)], 1) + tensors["embeddings.position_embeddings"]
    layer = "encoder.layer.0"
    x = x + tensors[f"{layer}.layer_scale1.lambda1"] * attend(norm(f"{layer}.norm1", x))
    x = x + tensors[f"{layer}.layer_scale2.lambda1"] * perceive(norm(f"{layer}.norm2", x))
    return norm("layernorm", x)[:, 0]


@pytest.mark.parametrize("swiglu", [False, True], ids=["base", "giant"])
def test_dino_of_transformers(tmp_path: Path, swiglu: bool) -> None:
    folder = tmp_path / "repository"
    tensors = dino_repository(folder, swiglu)
    obtain({"source": "directory", "path": str(folder)}, tmp_path / "dino", tmp_path)
    encoder = DinoEncoder(tmp_path / "dino", antialias=True)
    assert (encoder.preprocess.size, encoder.preprocess.antialias) == (28, True)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(encoder.features(images), dino_features(tensors, encoder.preprocess(images), heads=2))


@pytest.mark.parametrize("kind", [ClipEncoder, DinoEncoder])
def test_fetched_files_are_looked_at_before_they_are_loaded(kind: type, tmp_path: Path) -> None:
    for config in ("open_clip_config.json", "config.json"):
        (tmp_path / config).write_text("{}")
    write_record(tmp_path, {"id": "owner/name"}, {"config.json": "0" * 64})
    (tmp_path / "config.json").write_text("{} ")
    with pytest.raises(UserError, match=r"config\.json: 3 bytes instead of the 2 fetched"):
        kind(tmp_path)
