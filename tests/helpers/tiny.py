"""Tiny randomly initialised models, saved in the formats the real ones have."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

PROMPTS = ["a doctor", "a plumber at work"]


def tiny_tokenizer(max_length: int = 32) -> CLIPTokenizer:
    """A CLIP tokenizer without merges: one token per character."""
    characters = sorted(ByteLevel.alphabet())
    words = [*characters, *(c + "</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=max_length)


def sd15_shaped_pipeline(path: Path) -> Path:
    """Save a random pipeline with the blocks of Stable Diffusion 1.5, all of them narrow, and return its path."""
    return _shaped(path, {"hidden_act": "quick_gelu", "num_hidden_layers": 12}, {"attention_head_dim": 8}, 8)


def sd2_shaped_pipeline(path: Path, sample_size: int = 8, prediction_type: str = "epsilon") -> Path:
    """The same of Stable Diffusion 2.x: 23 layers of an OpenCLIP text encoder, heads by width, linear projections.

    The models for 768 pixels have sample size 96, here 12, and predict v.
    """
    text = {"hidden_act": "gelu", "num_hidden_layers": 23}
    unet = {"attention_head_dim": [1, 2, 4, 4], "use_linear_projection": True, "upcast_attention": sample_size > 8}
    return _shaped(path, text, unet, sample_size, prediction_type)


def _shaped(
    path: Path, text: dict[str, Any], unet: dict[str, Any], sample_size: int, prediction_type: str = "epsilon"
) -> Path:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(77)
    end = tokenizer.eos_token_id
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end,
        pad_token_id=end,
        **text,
    )
    denoiser = UNet2DConditionModel(
        sample_size=sample_size,
        layers_per_block=2,
        block_out_channels=(8, 16, 32, 32),
        down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
        cross_attention_dim=32,
        norm_num_groups=4,
        **unet,
    )
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(4, 8, 8, 8),
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=sample_size * 8,
    )
    encoder = CLIPTextModel(config)
    with torch.no_grad():
        encoder.embeddings.token_embedding.weight.mul_(30)
    return _save(path, denoiser, vae, encoder, tokenizer, torch.float32, prediction_type)


def tiny_pipeline(path: Path, image: int = 16, dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """Save a Stable Diffusion directory of some 40,000 parameters (f=4, 4 latent channels) and return its path."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    end = tokenizer.eos_token_id
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end,
        pad_token_id=end,
    )
    unet = UNet2DConditionModel(
        sample_size=image // 4,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=image,
    )
    encoder = CLIPTextModel(text)
    with torch.no_grad():  # the initialisation is so quiet that prompts would hardly matter
        encoder.embeddings.token_embedding.weight.mul_(30)
    return _save(path, unet, vae, encoder, tokenizer, dtype)


def _save(
    path: Path,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    dtype: torch.dtype,
    prediction_type: str = "epsilon",
) -> Path:
    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        prediction_type=prediction_type,
    )
    StableDiffusionPipeline(
        vae=vae.to(dtype),
        text_encoder=encoder.to(dtype),
        tokenizer=tokenizer,
        unet=unet.to(dtype),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(path)
    return path
