"""Files as the paper's authors released them: their names, shapes and nesting, with random numbers."""

import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from distalign.diffusion.pipeline import Pipeline
from helpers.opensphere import net, state

TEXT_MODULES = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2",
)  # fmt: skip
CHECKPOINT = "from-paper_finetune-text-encoder_09190215/checkpoint-9800_exported"
OCCUPATION = {
    "prompt_templates_train": ["A photo of the face of a {occupation}, a person"],
    "prompt_templates_test": ["A photo of the face of a {occupation}, a person"],
    "occupations_train_set": ["actor", "electrical engineer", "nurse"],
    "occupations_val_set": ["librarian"],
    "test_prompts": ["A photo of the face of a senator, a person", "A photo of the face of a judge, a person"],
}
OTHERS = {
    "occupation_w_style_and_context": {
        "train_prompts": ["A chef in a white coat leans on a table", "A clerk. Oil painting"],
        "val_prompts": ["A philosopher reading. Oil painting"],
        "test_prompts": ["A barista. Watercolor"],
    },
    "personal_descriptor": {
        "train_prompts": ["a kind person"],
        "val_prompts": ["a shy one"],
        "test_prompts": ["a fan"],
    },
    "sports": {"train_prompts": ["a runner"], "val_prompts": ["a rower"], "test_prompts": ["a boxer"]},
    "LAION-aesthetics-V2-occupation-related": {"test_prompts": ["English writer and essayist", "student with globe"]},
}
NETWORKS = {  # in data.zip: outputs of each network
    "2-trained-classifiers/CelebA_MobileNetLarge_08060852/epoch=9-step=12660_MobileNetLarge.pt": 80,
    "2-trained-classifiers/fairface_MobileNetLarge_GenderRace4_09041216/epoch=9-step=3380_MobileNetLarge.pt": 6,
    "2-trained-classifiers/fairface_MobileNetLarge_GenderRace4Age2_09151907/epoch=9-step=3380_MobileNetLarge.pt": 8,
    "5-trained-test-classifiers/CelebA-MobileNetLarge-Gender-09191318/epoch=19-step=25320_MobileNetLarge.pt": 2,
    "5-trained-test-classifiers/fairface-MobileNetLarge-Race4-09191318/epoch=19-step=6760_MobileNetLarge.pt": 4,
    "5-trained-test-classifiers/fairface-MobileNetLarge-Age2-09191319/epoch=19-step=6760_MobileNetLarge.pt": 2,
}
OPENSPHERE = "4-opensphere_checkpoints/opensphere_checkpoints/20220424_210641"  # in data.zip
BANKS = {  # in data.zip: whether races are in it
    "3-face-features/CelebA_MobileNetLarge_08240859/face_feats.pkl": False,
    "3-face-features/FairFace_MobileNetLarge_GenderRace4_09041634/face_feats.pkl": True,
}


def text_encoder_lora(pipeline: Pipeline, rank: int = 3) -> dict[str, Tensor]:
    """As diffusers 0.19 names the parameters of a text encoder patched with `patch_mlp=True`, under transformers 4."""
    config = pipeline.text_encoder.config
    width, inner = config.hidden_size, config.intermediate_size
    state = {}
    for layer in range(config.num_hidden_layers):
        for module in TEXT_MODULES:
            inputs = inner if module == "mlp.fc2" else width
            outputs = inner if module == "mlp.fc1" else width
            name = f"text_model.encoder.layers.{layer}.{module}.lora_linear_layer"
            state |= _pair(name, inputs, outputs, rank)
    return state


def unet_lora(pipeline: Pipeline, rank: int = 3) -> dict[str, Tensor]:
    """The state of diffusers 0.19's `AttnProcsLayers(unet.attn_processors)` with a LoRAAttnProcessor in each place."""
    config, state = pipeline.unet.config, {}
    for name in pipeline.unet.attn_processors:
        widths = config.block_out_channels
        if name.startswith("up_blocks."):
            width = widths[::-1][int(name.split(".")[1])]
        else:
            width = widths[int(name.split(".")[1])] if name.startswith("down_blocks.") else widths[-1]
        read = width if name.endswith("attn1.processor") else config.cross_attention_dim
        for projection, inputs in (("q", width), ("k", read), ("v", read), ("out", width)):
            state |= _pair(f"{name}.to_{projection}_lora", inputs, width, rank)
    return state


def prefix_embedding(pipeline: Pipeline, tokens: int = 5) -> dict[str, Tensor]:
    """The state of the authors' module of prefix tokens: row 0 stands for all other words and is zero."""
    embeddings = pipeline.text_encoder.embeddings
    positions = embeddings.position_embedding.weight.detach().clone()
    table = torch.zeros(tokens + 1, embeddings.token_embedding.weight.shape[1])
    table[1:] = torch.randn(table[1:].shape, generator=torch.Generator().manual_seed(1))
    return {
        "position_ids": torch.arange(len(positions)).expand((1, -1)),
        "position_embedding.weight": positions,
        "token_embedding.weight": table,
    }


def mobilenet(outputs: int, seed: int = 0) -> dict[str, Tensor]:
    """State dictionary of torchvision's MobileNetV3-Large with another last layer."""
    generator = torch.Generator().manual_seed(seed)
    state = dict(_mobilenet())
    state["features.0.0.weight"] = state["features.0.0.weight"] * (1 + seed)
    state["classifier.3.weight"] = torch.randn(outputs, 1280, generator=generator)
    state["classifier.3.bias"] = torch.randn(outputs, generator=generator)
    return state


@cache
def _mobilenet() -> dict[str, Tensor]:
    from torchvision.models import mobilenet_v3_large

    torch.manual_seed(0)
    return dict(mobilenet_v3_large(weights=None).state_dict())


def face_features(races: bool, faces: int = 8, width: int = 6) -> tuple[Tensor, ...]:
    """What is pickled as a bank: features, genders and their logits, and races and theirs."""
    torch.manual_seed(2)
    labels = (torch.arange(faces) % 2, torch.randn(faces, 2), torch.arange(faces) % 4, torch.randn(faces, 4))
    return (3 * torch.randn(faces, width), *labels[: 4 if races else 2])


def saved(state: Any, **options: Any) -> bytes:
    """What `torch.save` makes of it."""
    stream = io.BytesIO()
    torch.save(state, stream, **options)
    return stream.getvalue()


def write_zip(path: Path, members: Mapping[str, bytes]) -> Path:
    """A zip file of these members; weights, which do not get smaller, are only stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in members.items():
            opened.writestr(name, data, zipfile.ZIP_STORED if len(data) > 1 << 20 else zipfile.ZIP_DEFLATED)
    return path


def checkpoint_members(pipeline: Pipeline, folder: str = CHECKPOINT) -> dict[str, bytes]:
    """An exported checkpoint of text encoder and U-Net, with and without averaging."""
    average = {"text_encoder_lora": text_encoder_lora(pipeline), "unet_lora": unet_lora(pipeline)}
    members = {}
    for file, tensors in average.items():
        raw = {name: torch.nn.Parameter(value + 1) for name, value in tensors.items()}
        members |= {f"{folder}/{file}.pth": saved(raw), f"{folder}/{file}_EMA.pth": saved(tensors)}
    return members


def data_members(changed: Mapping[str, bytes | None] | None = None) -> dict[str, bytes]:
    """What is in data.zip, as far as it is read; some of it changed, or left out where None."""
    members = {"data/0-utils/arial-bold.ttf": b"a font"}
    members["data/1-prompts/occupation.json"] = json.dumps(OCCUPATION).encode()
    members |= {f"data/1-prompts/{name}.json": json.dumps(content).encode() for name, content in OTHERS.items()}
    networks = {name: outputs for name, outputs in NETWORKS.items() if name not in (changed or {})}
    members |= {f"data/{name}": saved(mobilenet(outputs)) for name, outputs in networks.items()}
    members |= {f"data/{name}": pickle.dumps(face_features(races)) for name, races in BANKS.items()}
    members[f"data/{OPENSPHERE}/config.yml"] = yaml.safe_dump({"model": {"backbone": {"net": net()}}}).encode()
    members[f"data/{OPENSPHERE}/models/backbone_100000.pth"] = saved(state())
    members |= {f"data/{name}": data for name, data in (changed or {}).items() if data is not None}
    left_out = {f"data/{name}" for name, data in (changed or {}).items() if data is None}
    return {name: data for name, data in members.items() if name not in left_out}


def _pair(name: str, inputs: int, outputs: int, rank: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(len(name) + sum(map(ord, name)))
    return {
        f"{name}.down.weight": torch.randn(rank, inputs, generator=generator) / rank,
        f"{name}.up.weight": 0.3 * torch.randn(outputs, rank, generator=generator),
    }
