"""The authors' adapters: LoRA of diffusers 0.19 on text encoder and U-Net, and prompt prefixes.

An exported checkpoint is a folder with some of these files, each also with `_EMA` in its name:

text_encoder_lora.pth  text_model.encoder.layers.{i}.{self_attn.{q,k,v,out}_proj, mlp.fc{1,2}}
                       .lora_linear_layer.{down,up}.weight, of every layer
unet_lora.pth          {block}.attentions.{i}.transformer_blocks.{j}.attn{1,2}.processor.to_{q,k,v,out}_lora
                       .{down,up}.weight, of every attention
prefix_embedding.pth   token_embedding.weight (n + 1, D), row 0 unused; position_embedding.weight and position_ids,
                       the model's own

LoRA has no scale of its own: W + up down.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distalign.alignment.state import TrainLog
from distalign.diffusion.adapters import Adapter, add_prefix, attach_adapter, save_adapter
from distalign.diffusion.pipeline import Pipeline, load_pipeline
from distalign.errors import UserError
from distalign.released.archive import Archive
from distalign.released.tensors import check_names, check_shape, load_tensors
from distalign.store.files import atomic_write_json
from distalign.store.provenance import collect, write_provenance

log = logging.getLogger(__name__)
FILES = {"text_encoder": "text_encoder_lora", "unet": "unet_lora", "prompt_prefix": "prefix_embedding"}
HALF_PRECISION = 1e-3  # of the size of a number that went through float16


def convert_adapter(spec: Mapping[str, Any], backbone: Path, run: Path, root: Path) -> None:
    """Convert the released adapter of `spec` (`Study.fit_spec`); writes what finetuning does, with an empty log.

    Args:
        spec: Its settings name the archive, the folder in it, and whether to take moving averages.
        backbone: The model it is for: a diffusers pipeline directory.
        run: Where to write adapter/, spec.json, train_log.parquet and provenance.json.
        root: The repository, which relative paths start from.

    Raises:
        UserError: the archive or a file in it is missing, damaged, or for another model.
    """
    settings = spec["settings"]
    archive = Archive(root / settings["archive"])
    states = read_states(archive, settings["folder"], settings["ema"])
    adapter = build_adapter(load_pipeline(backbone), states, str(archive.path))
    save_adapter(adapter, run / "adapter")
    provenance = collect("fit", spec, {"backbone": backbone, "archive": archive.path})
    TrainLog().write(run / "train_log.parquet", provenance)
    atomic_write_json(run / "spec.json", dict(spec))
    write_provenance(run / "provenance.json", provenance)


def read_states(archive: Archive, folder: str, ema: bool) -> dict[str, dict[str, Tensor]]:
    """The state dictionaries in a folder of an exported checkpoint, by the part of the model they change.

    Raises:
        UserError: no such folder, none of the files in it, one of them with the other kind only, or an unreadable one.
    """
    inside = archive.inside(folder)
    wanted = {part: f"{name}{'_EMA' if ema else ''}.pth" for part, name in FILES.items()}
    found = {part: inside[file] for part, file in wanted.items() if file in inside}
    if not found:
        raise UserError(
            f"{archive.path}: none of {', '.join(wanted.values())} in {folder}, which holds {', '.join(inside)}."
        )
    others = {part: f"{name}{'' if ema else '_EMA'}.pth" for part, name in FILES.items()}
    if half := [part for part in FILES if part not in found and others[part] in inside]:
        raise UserError(
            f"{archive.path}: {folder} lacks {wanted[half[0]]}, though it has {others[half[0]]}: a part of the adapter "
            f"would be left out. Get the archive anew, or take the others, with ema: {str(not ema).lower()}."
        )
    return {part: load_tensors(archive.read(member), f"{archive.path}: {member}") for part, member in found.items()}


def build_adapter(pipeline: Pipeline, states: Mapping[str, Mapping[str, Tensor]], source: str) -> Adapter:
    """Put released adapters on a pipeline in float32.

    Args:
        pipeline: The model they are for.
        states: Tensors by the authors' names, by part.
        source: What messages call the place they come from.

    Raises:
        UserError: a tensor is missing, unexpected or of another shape than the model's layers need.
    """
    lora = [part for part in states if part != "prompt_prefix"]
    rank = _rank(states[lora[0]], f"{source}: {FILES[lora[0]]}") if lora else 0
    adapter = attach_adapter(pipeline, lora, rank, 0, 0)
    for part in lora:
        own = {name: value for name, value in adapter.parameters.items() if name.startswith(f"{part}.")}
        _fill(own, states[part], f"{source}: {FILES[part]}")
        log.info("%s: %d tensors of rank %d", FILES[part], len(states[part]), rank)
    if "prompt_prefix" in states:
        add_prefix(pipeline, _prefix(pipeline, states["prompt_prefix"], f"{source}: {FILES['prompt_prefix']}"))
    return Adapter(pipeline, tuple(states), adapter.parameters)


def released_name(parameter: str) -> str:
    """The authors' name of one of our LoRA parameters (`Adapter.parameters`)."""
    match = re.fullmatch(r"(text_encoder|unet)\.(.+)\.lora_([AB])\.default\.weight", parameter)
    if match is None:
        raise ValueError(f"{parameter} is no parameter of a LoRA")
    part, layer, matrix = match.groups()
    side = {"A": "down", "B": "up"}[matrix]
    if part == "text_encoder":  # transformers 5 dropped `text_model.` from its names
        return f"text_model.{layer.removeprefix('text_model.')}.lora_linear_layer.{side}.weight"
    attention, _, projection = layer.removesuffix(".0").rpartition(".")
    return f"{attention}.processor.{projection}_lora.{side}.weight"


def _fill(parameters: Mapping[str, torch.nn.Parameter], state: Mapping[str, Tensor], source: str) -> None:
    """Copy the released values into our parameters, each exactly once."""
    names = {name: released_name(name) for name in parameters}
    check_names(state, names.values(), source)
    for name, parameter in parameters.items():
        tensor = state[names[name]]
        check_shape(tensor, parameter.shape, f"{source}: {names[name]}")
        parameter.data = tensor.to(parameter.device, torch.float32)


def _rank(state: Mapping[str, Tensor], source: str) -> int:
    down = next((value for name, value in state.items() if name.endswith(".down.weight") and value.dim() == 2), None)
    if down is None:
        raise UserError(f"{source}: no `...down.weight` in it, so it is not a LoRA.")
    return len(down)


def _prefix(pipeline: Pipeline, state: Mapping[str, Tensor], source: str) -> Tensor:
    """Vectors (n, D) of a prefix, which replace token embeddings; positions have to be the model's own."""
    embeddings = pipeline.text_encoder.embeddings
    positions = embeddings.position_embedding.weight
    check_names(state, ["token_embedding.weight", "position_embedding.weight", "position_ids"], source)
    tokens, own = state["token_embedding.weight"], state["position_embedding.weight"]
    check_shape(tokens, (max(len(tokens), 2), embeddings.token_embedding.weight.shape[1]), f"{source}: token_embedding")
    check_shape(own, positions.shape, f"{source}: position_embedding")
    check_shape(state["position_ids"], (1, len(positions)), f"{source}: position_ids")
    if not torch.allclose(own.float(), positions.float(), rtol=HALF_PRECISION, atol=HALF_PRECISION / 10):
        raise UserError(f"{source}: its position embedding is not the model's: it was made for another text encoder.")
    return tokens[1:].float()
