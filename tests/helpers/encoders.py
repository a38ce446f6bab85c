"""Encoders in the layouts of their published repositories, with the structure of the real ones at reduced width."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
# Heads of 80 and 104 channels, and the hidden layers of bigG, are theirs; here they are narrower by the same factor.
CLIPS: dict[str, dict[str, Any]] = {
    "ViT-H-14": {"layers": 3, "width": 32, "head_width": 8, "patch_size": 14},
    "ViT-bigG-14": {"layers": 3, "width": 52, "head_width": 13, "mlp_ratio": 4.9231, "patch_size": 14},
}


def clip_repository(folder: Path, name: str) -> Path:
    """As laion's: open_clip's files among those for transformers."""
    vision = {"image_size": 28, **CLIPS[name]}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    config: dict[str, Any] = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    torch.manual_seed(0)
    tensors = {name: tensor.contiguous() for name, tensor in open_clip.CLIP(**config).state_dict().items()}
    folder.mkdir(parents=True)
    settings = {"model_cfg": config, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    save_file(tensors, folder / "open_clip_model.safetensors", {"format": "pt"})
    for decoy in ("model.safetensors", "open_clip_pytorch_model.bin", "pytorch_model.bin"):
        (folder / decoy).write_bytes(b"for others")
    (folder / "config.json").write_text('{"model_type": "clip"}')
    return folder


def dino_repository(folder: Path, swiglu: bool, width: int = 16) -> dict[str, Tensor]:
    """As facebook's: dinov2-base, or with `swiglu` dinov2-giant; its tensors."""
    config = {
        "architectures": ["Dinov2Model"], "model_type": "dinov2", "hidden_size": width, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "mlp_ratio": 4, "use_swiglu_ffn": swiglu,
        "layerscale_value": 1.0, "hidden_act": "gelu", "torch_dtype": "float32", "transformers_version": "4.31.0.dev0",
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    crop = {"crop_size": {"height": 28, "width": 28}, "image_processor_type": "BitImageProcessor", "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(crop))
    tensors = dino_tensors(width, swiglu)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    return tensors


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
