"""A frozen latent diffusion model, read from an ordinary diffusers `StableDiffusionPipeline` directory."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from distalign.diffusion.attention import keep_keys
from distalign.diffusion.half import text_precision
from distalign.errors import UserError
from distalign.store.files import read_json
from distalign.store.layouts import check_pipeline
from distalign.store.pretrained import check_record, load_model, readable


@dataclass
class Pipeline:
    """The parts of a latent diffusion model, frozen and in evaluation mode.

    Attributes:
        scheduler_config: the scheduler's own JSON configuration (noise table, prediction type).
        prefix_ids: token ids of the learned prompt prefix, put before every prompt; empty without one.
        autocast: whether U-Net and decoder run under bfloat16 autocast.
        root: the directory it was loaded from.
        evaluated: rows the U-Net has evaluated so far.
        compiled: the U-Net, compiled, for what is not differentiated; None: not asked for.
        keeps_keys: whether keys and values of cross-attention are computed once per prompt (`attention.py`).
    """

    unet: Any  # UNet2DConditionModel; diffusers imports lazily, which hides its classes from type checkers
    vae: Any  # AutoencoderKL
    text_encoder: Any  # CLIPTextModel
    tokenizer: Any  # CLIPTokenizer
    scheduler_config: dict[str, Any]
    prefix_ids: list[int] = field(default_factory=list)
    autocast: bool = False
    root: Path | None = None
    keeps_keys: bool = False
    evaluated: int = 0
    compiled: Any = None

    @property
    def device(self) -> torch.device:
        """Where U-Net, decoder and text encoder are."""
        device: torch.device = self.unet.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Of the frozen weights; latents, adapters and the text encoder stay float32."""
        dtype: torch.dtype = self.unet.dtype
        return dtype

    @property
    def computes_in(self) -> torch.dtype:
        """What U-Net and decoder compute in."""
        return torch.bfloat16 if self.autocast else self.dtype

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one latent."""
        size = self.unet.config["sample_size"]
        height, width = (size, size) if isinstance(size, int) else size
        return self.unet.config["in_channels"], height, width

    @property
    def downscale(self) -> int:
        """Image pixels per latent cell along one side."""
        return int(2 ** (len(self.vae.config["block_out_channels"]) - 1))

    @property
    def image_size(self) -> int:
        """Side of the square image in pixels."""
        return self.latent_shape[1] * self.downscale

    @property
    def modules(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """All networks."""
        return self.unet, self.vae, self.text_encoder

    def network(self) -> Any:
        """The U-Net to call now: compiled, unless there is a graph to be made or a method's hook to be heard."""
        if self.compiled is None or torch.is_grad_enabled() or _has_hooks(self.unet):
            return self.unet
        return self.compiled

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """The region in which U-Net and decoder run.

        Only float32 weights are run under autocast: those in half precision compute in it as they are, which also
        keeps norms and softmax from going to float32 and back.
        """
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast)


def load_generator(path: Path | str, spec: Mapping[str, Any], device: torch.device) -> Pipeline:
    """The pipeline of a plan's or an evaluation's spec, in the precision it says."""
    autocast = spec.get("autocast") == "bfloat16" and has_bfloat16(device)
    pipeline = load_pipeline(path, device, getattr(torch, spec["precision"]), autocast)
    if spec.get("compile"):
        pipeline.compiled = torch.compile(pipeline.unet)  # at the first call, with whatever adapters there are then
    return pipeline


def _has_hooks(network: nn.Module) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 by itself, instead of emulating it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def load_pipeline(
    path: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, autocast: bool = False
) -> Pipeline:
    """Load a diffusers Stable Diffusion directory for inference and for gradients with respect to adapters.

    `dtype` is that of U-Net and autoencoder; see `text_precision` for the text encoder.

    Raises:
        UserError: the directory or one of its parts is missing or cut off, or it is a pipeline of another kind.
    """
    root = Path(path)
    for part in ("model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler/scheduler_config.json"):
        if not (root / part).exists():
            raise UserError(f"{root}: not a diffusers pipeline, {part} is missing; fetch or pretrain it again")
    check_pipeline(read_json(root / "model_index.json"), str(root))
    check_record(root)
    transformers_logging.disable_progress_bar()
    with readable(root / "tokenizer", "CLIPTokenizer"):
        tokenizer = CLIPTokenizer.from_pretrained(root / "tokenizer", local_files_only=True)
    pipeline = Pipeline(
        unet=load_model(UNet2DConditionModel, root / "unet", torch_dtype=dtype),
        vae=load_model(AutoencoderKL, root / "vae", torch_dtype=dtype),
        text_encoder=load_model(CLIPTextModel, root / "text_encoder", dtype=text_precision(dtype)),
        tokenizer=tokenizer,
        scheduler_config=read_json(root / "scheduler/scheduler_config.json"),
        autocast=autocast,
        root=root,
    )
    _check_latents(pipeline, root)
    for module in pipeline.modules:
        module.requires_grad_(False).eval().to(device)
    if pipeline.device.type == "cuda":
        pipeline.unet.to(memory_format=torch.channels_last)
        keep_keys(pipeline.unet)
        pipeline.keeps_keys = True
    if autocast and pipeline.device.type == "cpu":
        # Torch's fused attention has no fast bfloat16 backward on a CPU, and its unfused one copies a lot.
        pipeline.unet.set_attn_processor(AttnProcessor())
    else:
        # The decoder in float32 is 1.5 times as fast; in bfloat16 its backward would take twice as long, and the U-Net
        # gains nothing.
        pipeline.vae.to(memory_format=torch.channels_last)
    return pipeline


def _check_latents(pipeline: Pipeline, root: Path) -> None:
    """Check that the U-Net takes latents and nothing else, as those for inpainting, depth or upscaling do."""
    wanted, found = pipeline.vae.config["latent_channels"], pipeline.unet.config["in_channels"]
    if found != wanted:
        raise UserError(
            f"{root}: its U-Net takes {found} channels, not the {wanted} of its latents: a model for inpainting, depth "
            "or upscaling. Name one that makes images from text alone."
        )
