"""A small CLIP of the mini world: an open_clip model from a custom config, trained on captioned pictures."""

from collections.abc import Sequence
from typing import Any

import open_clip
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from distalign.miniworld.pretrain.denoiser import token_ids
from distalign.miniworld.pretrain.loop import Progress, optimise, to_signed, warm_cosine
from distalign.miniworld.pretrain.tokenizer import MAX_LENGTH

PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}


def clip_config(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """open_clip's model config: a vision transformer on 8-pixel patches and a text transformer."""
    return {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 64, "patch_size": 8, "layers": 4, "width": 128, "head_width": 32},
        "text_cfg": {
            "context_length": MAX_LENGTH,
            "vocab_size": len(tokenizer),
            "width": 128,
            "heads": 4,
            "layers": 3,
            "hf_tokenizer_name": "tokenizer",
        },
    }


def train_clip(
    images: Tensor, captions: Sequence[str], tokenizer: CLIPTokenizer, steps: int, seed: int,
    batch: int = 128, rate: float = 1e-3,
) -> open_clip.CLIP:  # fmt: skip
    """Contrastive training (Radford et al. 2021) on uint8 pictures (n, 3, 64, 64) and their captions."""
    torch.manual_seed(seed)
    config = clip_config(tokenizer)
    model = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], _text_config(config))
    ids = token_ids(tokenizer, captions)
    optimiser, schedule = optimise(model.parameters(), rate, warm_cosine(steps, 100, hold=0.3), betas=(0.9, 0.98))
    progress = Progress("clip", steps, 100)
    for step in range(steps):
        index = torch.randint(len(images), (batch,))
        pictures = to_signed(images[index])
        pictures = pictures.flip(3) if torch.rand(()) < 0.5 else pictures
        image, text, scale = model(pictures, ids[index])[:3]
        # Equal captions are not each other's negatives.
        same = (ids[index][:, None] == ids[index][None]).all(2).float()
        target = same / same.sum(1, keepdim=True)
        logits = scale * image @ text.T
        loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)
        progress.add(step, loss=loss, accuracy=(logits.argmax(1) == torch.arange(batch)).float().mean())
    return model.eval()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy with target distributions (n, n)."""
    return -(target * logits.log_softmax(1)).sum(1).mean()


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in config["text_cfg"].items() if k != "hf_tokenizer_name"}
