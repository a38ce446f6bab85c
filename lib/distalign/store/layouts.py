"""The files of a pretrained model that its loader reads: configurations and safetensors, no pickle and no code.

The layouts are those of model hubs: a diffusers pipeline, an open_clip model, a transformers model. A repository or a
directory is told by a file that only one of them has.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from distalign.errors import UserError

MODEL_INDEX = "model_index.json"
OPEN_CLIP = "open_clip_config.json"
TRANSFORMERS = "config.json"
PIPELINE_CLASS = "StableDiffusionPipeline"
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt",
)  # fmt: skip
SAFE = (".safetensors", ".json", ".txt", ".md", ".parquet")
WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".h5", ".msgpack")
WAY_OUT = "Only safetensors are read: choose another variant or revision, or convert the weights."


def needed_files(files: Collection[str], variant: str | None, name: str) -> dict[str, str]:
    """The files a loader reads, by the name it reads them under, the configuration first.

    With a variant (`fp16`), its weights take the names of the plain ones, so that no loader has to know of it.

    Args:
        files: All files there are, with `/` between folders.
        variant: Suffix of the weights files, as diffusers and transformers put it.
        name: The model, for messages.

    Raises:
        UserError: weights or a configuration are missing, or weights are there as pickles only.
    """
    if MODEL_INDEX in files:
        return dict(_pipeline(files, variant, name))
    if OPEN_CLIP in files:
        stems = ("open_clip_model", "open_clip_pytorch_model")
        stem = next((stem for stem in stems if f"{stem}.safetensors" in files), stems[0])
        tokenizer = {file: file for file in TOKENIZER if file in files}
        return {OPEN_CLIP: OPEN_CLIP} | dict(_weights(stem, files, variant, name)) | tokenizer
    if TRANSFORMERS in files:
        configuration = [file for file in (TRANSFORMERS, "preprocessor_config.json") if file in files]
        return {file: file for file in configuration} | dict(_weights("model", files, variant, name))
    return {file: file for file in sorted(files) if file.endswith(SAFE) and not file.startswith(".")}


def check_pipeline(index: Mapping[str, Any], name: str) -> None:
    """Check that a pipeline's `model_index.json` is of the kind this project samples with.

    Raises:
        UserError: another class (SDXL, inpainting, ...), or one with a second text encoder.
    """
    found = index.get("_class_name")
    if found != PIPELINE_CLASS or "text_encoder_2" in index:
        raise UserError(
            f"{name}: {MODEL_INDEX} says {found}; only {PIPELINE_CLASS} is supported, the class of Stable Diffusion "
            "1.x and 2.x and of models built like them."
        )


def _pipeline(files: Collection[str], variant: str | None, name: str) -> Iterator[tuple[str, str]]:
    configurations = ["scheduler/scheduler_config.json", *(f"{p}/config.json" for p in ("unet", "vae", "text_encoder"))]
    tokenizer = [f"tokenizer/{file}" for file in TOKENIZER if f"tokenizer/{file}" in files]
    if "tokenizer/tokenizer.json" not in tokenizer and not {"tokenizer/vocab.json", "tokenizer/merges.txt"} <= {*files}:
        raise UserError(f"{name}: no tokenizer: neither tokenizer.json nor vocab.json with merges.txt in tokenizer/.")
    for file in (MODEL_INDEX, *configurations, *tokenizer):
        if file not in files:
            raise UserError(
                f"{name}: {file} is missing: a pipeline that is incomplete, or no Stable Diffusion 1.x or 2.x."
            )
        yield file, file
    for stem in ("text_encoder/model", "vae/diffusion_pytorch_model", "unet/diffusion_pytorch_model"):
        yield from _weights(stem, files, variant, name)


def _weights(stem: str, files: Collection[str], variant: str | None, name: str) -> Iterator[tuple[str, str]]:
    """One file of weights, or, without a variant, an index and its shards."""
    wanted = f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"
    index = f"{stem}.safetensors.index.json"
    if wanted in files:
        yield f"{stem}.safetensors", wanted
    elif variant is None and index in files:
        yield index, index
        shards = re.compile(rf"{re.escape(stem)}-\d+-of-\d+\.safetensors")
        yield from ((file, file) for file in sorted(files) if shards.fullmatch(file))
    else:
        folder = PurePosixPath(stem).parent
        there = [file for file in sorted(files) if PurePosixPath(file).parent == folder and file.endswith(WEIGHTS)]
        raise UserError(f"{name}: no {wanted}; there is {', '.join(there) or 'nothing like it'}. {WAY_OUT}")
