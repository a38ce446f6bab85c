"""Encoders in the layouts of their published repositories, with the structure of the real ones at reduced width."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from distalign.encoders import ClipEncoder, DinoEncoder
from distalign.errors import UserError
from distalign.store.pretrained import write_record
from distalign.weights import obtain

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
# Heads of 80 and 104 channels, and the hidden layers of bigG, are theirs; here they are narrower by the same factor.
CLIPS: dict[str, dict[str, Any]] = {
    "ViT-H-14": {"layers": 3, "width": 32, "head_width": 8, "patch_size": 14},
    "ViT-bigG-14": {"layers": 3, "width": 52, "head_width": 13, "mlp_ratio": 4.9231, "patch_size": 14},
}


@pytest.fixture(params=CLIPS)
def clip_repository(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """As laion's: open_clip's files among those for transformers."""
    vision = {"image_size": 28, **CLIPS[request.param]}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    config: dict[str, Any] = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    torch.manual_seed(0)
    tensors = {name: tensor.contiguous() for name, tensor in open_clip.CLIP(**config).state_dict().items()}
    folder = tmp_path / "repository"
    folder.mkdir()
    settings = {"model_cfg": config, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    save_file(tensors, folder / "open_clip_model.safetensors", {"format": "pt"})
    for decoy in ("model.safetensors", "open_clip_pytorch_model.bin", "pytorch_model.bin"):
        (folder / decoy).write_bytes(b"for others")
    (folder / "config.json").write_text('{"model_type": "clip"}')
    return folder


def test_clip_of_open_clip(clip_repository: Path, tmp_path: Path) -> None:
    obtain({"source": "directory", "path": str(clip_repository)}, tmp_path / "clip", tmp_path)
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


def test_clip_that_is_cut_off_or_of_another_size_is_named(clip_repository: Path) -> None:
    weights = clip_repository / "open_clip_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(UserError, match="repository: cannot be read as an open_clip model"):
        ClipEncoder(clip_repository)
    weights.write_bytes(whole)
    config = json.loads((clip_repository / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["layers"] = 4
    (clip_repository / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="repository: cannot be read as an open_clip model"):
        ClipEncoder(clip_repository)


def dino_tensors(width: int, swiglu: bool) -> dict[str, Tensor]:
    """The tensors of facebook/dinov2-base (with one layer), or of dinov2-giant, by their names."""
    torch.manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.mask_token": (1, width),
        "embeddings.position_embeddings": (1, 1 + 4, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, 14, 14),
        "embeddings.patch_embeddings.projection.bias": (width,),
        "layernorm.weight": (width,),
        "layernorm.bias": (width,),
    }
    hidden = (int(width * 4 * 2 / 3) + 7) // 8 * 8
    inside = {"weights_in": (2 * hidden, width), "weights_out": (width, hidden)}
    linear = {f"attention.attention.{name}": (width, width) for name in ("query", "key", "value")}
    linear |= {"attention.output.dense": (width, width)}
    linear |= {f"mlp.{name}": it for name, it in inside.items()} if swiglu else {}
    linear |= {} if swiglu else {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
    for name, shape in linear.items():
        shapes |= {f"encoder.layer.0.{name}.weight": shape, f"encoder.layer.0.{name}.bias": shape[:1]}
    for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "layer_scale1.lambda1"):
        shapes[f"encoder.layer.0.{name}"] = (width,)
    shapes["encoder.layer.0.layer_scale2.lambda1"] = (width,)
    return {name: torch.randn(shape) * 0.2 for name, shape in shapes.items()}


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
    width, folder = 16, tmp_path / "repository"
    folder.mkdir()
    config = {
        "architectures": ["Dinov2Model"], "model_type": "dinov2", "hidden_size": width, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "mlp_ratio": 4, "use_swiglu_ffn": swiglu,
        "layerscale_value": 1.0, "hidden_act": "gelu", "torch_dtype": "float32", "transformers_version": "4.31.0.dev0",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    crop = {"crop_size": {"height": 28, "width": 28}, "image_processor_type": "BitImageProcessor", "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(crop))
    tensors = dino_tensors(width, swiglu)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
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
