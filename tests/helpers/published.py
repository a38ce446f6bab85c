"""Tiny pipelines in the layout of the published repositories, which today's libraries no longer write.

The repositories of Stable Diffusion 1.5 and 2.1 were saved by diffusers 0.6 to 0.8 and transformers 4.2x: the text
encoder's tensors are named with `text_model.` and have a `position_ids`, the decoder's attention has older names, the
tokenizer is a vocabulary and a list of merges, and neither configuration names what has become a default since.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
SCHEDULERS = {
    "epsilon": {"_class_name": "PNDMScheduler", "skip_prk_steps": True},
    "v_prediction": {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"},
}


def as_published(path: Path, prediction_type: str = "epsilon", pad_token: str = "<|endoftext|>") -> Path:
    """Rewrite a saved pipeline, in place, as the hub has it; plain, half and pickled weights side by side."""
    _rename_text_encoder(path / "text_encoder/model.safetensors")
    _rename_attention(path / "vae/diffusion_pytorch_model.safetensors")
    _old_tokenizer(path / "tokenizer", pad_token)
    table = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
    _write(
        path / "scheduler/scheduler_config.json",
        SCHEDULERS[prediction_type] | table | {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1},
    )
    _drop(path / "vae/config.json", "scaling_factor", "force_upcast", "use_quant_conv", "use_post_quant_conv")
    index = json.loads((path / "model_index.json").read_text())
    index |= {
        "_diffusers_version": "0.6.0",
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
    }
    for key in ("image_encoder", "requires_safety_checker"):
        index.pop(key, None)
    _write(path / "model_index.json", index)
    for weights in ("text_encoder/model", "vae/diffusion_pytorch_model", "unet/diffusion_pytorch_model"):
        plain = load_file(path / f"{weights}.safetensors")
        half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in plain.items()}
        save_file(half, path / f"{weights}.fp16.safetensors", {"format": "pt"})
        (path / f"{weights.replace('/model', '/pytorch_model')}.bin").write_bytes(b"a pickle")
    (path / "safety_checker").mkdir()
    (path / "safety_checker/model.safetensors").write_bytes(b"not needed")
    (path / "v1-5-pruned.ckpt").write_bytes(b"not needed")
    return path


def _rename_text_encoder(file: Path) -> None:
    tensors = {f"text_model.{name}": tensor for name, tensor in load_file(file).items()}
    positions = len(tensors["text_model.embeddings.position_embedding.weight"])
    tensors["text_model.embeddings.position_ids"] = torch.arange(positions)[None]
    save_file(tensors, file, {"format": "pt"})


def _rename_attention(file: Path) -> None:
    renamed = {}
    for name, tensor in load_file(file).items():
        for new, old in ATTENTION.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        renamed[name] = tensor
    save_file(renamed, file, {"format": "pt"})


def _old_tokenizer(folder: Path, pad_token: str) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    for file in folder.iterdir():
        file.unlink()
    vocabulary = dict(sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1]))
    _write(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("#version: 0.2\n")

    def added(content: str, **more: str) -> dict[str, Any]:
        return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False} | more

    named = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special = {name: added(content) for name, content in named.items()}
    _write(folder / "special_tokens_map.json", special | {"pad_token": pad_token})
    config = {name: added(content, __type="AddedToken") for name, content in named.items()}
    config |= {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77}
    _write(
        folder / "tokenizer_config.json",
        config | {"pad_token": "<|endoftext|>", "tokenizer_class": "CLIPTokenizer", "special_tokens_map_file": "./x"},
    )


def _drop(file: Path, *keys: str) -> None:
    config = json.loads(file.read_text())
    _write(file, {key: value for key, value in config.items() if key not in keys})


def _write(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2))
