"""What is trained: LoRA on the text encoder or the U-Net, or a learned prompt prefix; their files; their average."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from distalign.diffusion.half import HALF, follow_inputs
from distalign.diffusion.pipeline import Pipeline
from distalign.errors import UserError
from distalign.store.files import atomic_directory

TARGETS = ("text_encoder", "unet", "prompt_prefix")
LORA_LAYERS = {
    "text_encoder": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
    "unet": ["to_q", "to_k", "to_v", "to_out.0"],
}
LORA_FILE = "pytorch_lora_weights.safetensors"
PREFIX_FILE = "learned_embeds.safetensors"
PREFIX_TOKEN = "<distalign>"
_LOADER: Any = StableDiffusionLoraLoaderMixin


class PrefixEmbedding(nn.Module):
    """A token embedding whose ids from the vocabulary's size on are learned vectors."""

    def __init__(self, table: nn.Embedding, prefix: Tensor) -> None:
        super().__init__()
        self.table = table
        self.prefix = nn.Parameter(prefix)

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings (B, L, D) of token ids (B, L)."""
        size = self.table.num_embeddings
        learned = self.prefix[(ids - size).clamp(min=0)].to(self.table.weight.dtype)
        return torch.where((ids >= size).unsqueeze(-1), learned, self.table(ids.clamp(max=size - 1)))


@dataclass
class Adapter:
    """The trainable part of a pipeline: float32 parameters by name, in an order that is the same everywhere."""

    pipeline: Pipeline
    train: tuple[str, ...]
    parameters: dict[str, nn.Parameter]


def attach_adapter(pipeline: Pipeline, train: Sequence[str], rank: int, prefix_tokens: int, seed: int) -> Adapter:
    """Put fresh adapters on a pipeline; it makes the same images as before until they are trained (a prefix does not).

    `train` is some of "text_encoder", "unet" (LoRA of scale 1: down ~ N(0, 1/rank), up 0) and "prompt_prefix"
    (`prefix_tokens` vectors, each starting as a random word). The initial values depend on `seed` alone.

    Raises:
        UserError: an unknown part in `train`.
    """
    generator = torch.Generator().manual_seed(seed)
    if unknown := set(train) - set(TARGETS):
        raise UserError(f"train: unknown part {sorted(unknown)[0]!r}; choose from {', '.join(TARGETS)}")
    if "text_encoder" in train:
        add_lora(pipeline.text_encoder, LORA_LAYERS["text_encoder"], rank, generator)
    if "unet" in train:
        add_lora(pipeline.unet, LORA_LAYERS["unet"], rank, generator)
        _in_half(pipeline)
    if "prompt_prefix" in train:
        table = pipeline.text_encoder.embeddings.token_embedding
        words = torch.randint(table.num_embeddings, (prefix_tokens,), generator=generator)
        add_prefix(pipeline, table.weight[words.to(table.weight.device)].detach().float())
    return Adapter(pipeline, tuple(train), _trainable(pipeline))


def add_lora(module: Any, layers: list[str], rank: int, generator: torch.Generator) -> None:
    """Add a LoRA to the named layers of a transformers or diffusers model, initialised as in the paper's code."""
    module.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers))
    for name, parameter in sorted(module.named_parameters()):
        if "lora_A" in name:
            parameter.data = (torch.randn(parameter.shape, generator=generator) / rank).to(parameter.device)
        elif "lora_B" in name:
            parameter.data = torch.zeros_like(parameter, dtype=torch.float32)


def add_prefix(pipeline: Pipeline, prefix: Tensor) -> None:
    """Learned vectors (n, D) before every prompt but the empty one."""
    embeddings = pipeline.text_encoder.embeddings
    size = embeddings.token_embedding.num_embeddings
    embeddings.token_embedding = PrefixEmbedding(embeddings.token_embedding, prefix)
    pipeline.prefix_ids = list(range(size, size + len(prefix)))


def _trainable(pipeline: Pipeline) -> dict[str, nn.Parameter]:
    parts: dict[str, Any] = {"text_encoder": pipeline.text_encoder, "unet": pipeline.unet}
    return {
        f"{part}.{name}": parameter
        for part, module in parts.items()
        for name, parameter in sorted(module.named_parameters())
        if parameter.requires_grad
    }


def save_adapter(adapter: Adapter, directory: Path) -> None:
    """Write the adapter's present values, as a whole directory at once.

    LoRA goes to `pytorch_lora_weights.safetensors`, which `StableDiffusionPipeline.load_lora_weights` reads; a prefix
    to `learned_embeds.safetensors` for `load_textual_inversion`, used by writing "<distalign> " before the prompt.
    """
    pipeline = adapter.pipeline
    with atomic_directory(directory) as target:
        layers = {part: _lora_layers(pipeline, part) for part in ("unet", "text_encoder") if part in adapter.train}
        if layers:
            _LOADER.save_lora_weights(
                target,
                unet_lora_layers=layers.get("unet"),
                text_encoder_lora_layers=layers.get("text_encoder"),
                weight_name=LORA_FILE,
            )
        if "prompt_prefix" in adapter.train:
            prefix = pipeline.text_encoder.embeddings.token_embedding.prefix.detach().cpu()
            safetensors.torch.save_file({PREFIX_TOKEN: prefix}, target / PREFIX_FILE)


def _lora_layers(pipeline: Pipeline, part: str) -> dict[str, Tensor]:
    """LoRA tensors of one model under the names users' tools know ("text_model." left transformers only in 5.0)."""
    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(getattr(pipeline, part)))
    before = "text_model." if part == "text_encoder" else ""
    return {before + name.removeprefix("text_model."): value.detach().cpu() for name, value in state.items()}


def load_adapter(pipeline: Pipeline, directory: Path) -> None:
    """Put a saved adapter on a pipeline, frozen.

    Raises:
        UserError: the directory holds no adapter.
    """
    lora, prefix = Path(directory) / LORA_FILE, Path(directory) / PREFIX_FILE
    if not lora.exists() and not prefix.exists():
        raise UserError(f"{directory}: no adapter ({LORA_FILE} or {PREFIX_FILE}) in it; run its finetuning again")
    if lora.exists():
        state, alphas = _LOADER.lora_state_dict(directory, weight_name=LORA_FILE)
        if any(name.startswith("unet.") for name in state):
            _LOADER.load_lora_into_unet(state, alphas, pipeline.unet)
            _in_half(pipeline)
        if any(name.startswith("text_encoder.") for name in state):
            _LOADER.load_lora_into_text_encoder(state, alphas, pipeline.text_encoder, prefix="text_encoder")
    if prefix.exists():
        vectors = safetensors.torch.load_file(prefix)[PREFIX_TOKEN]
        add_prefix(pipeline, vectors.to(pipeline.device))
    for module in pipeline.modules:
        module.requires_grad_(False).eval()


def _in_half(pipeline: Pipeline) -> None:
    if pipeline.dtype in HALF:
        follow_inputs(pipeline.unet)


class MovingAverage:
    """Exponential moving average of parameters, its decay ramping up as min(decay, (1 + s) / (10 + s)).

    With it the first updates count for more, as in diffusers' EMAModel; s is the number of updates before this one.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self.parameters = parameters
        self.decay = decay
        self.updates = 0
        self.shadow = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters' present values."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in self.parameters.items():
            self.shadow[name].lerp_(parameter, 1 - decay)
        self.updates += 1

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the parameters; a second call undoes the first."""
        for name, parameter in self.parameters.items():
            value = parameter.detach().clone()
            parameter.copy_(self.shadow[name])
            self.shadow[name].copy_(value)
