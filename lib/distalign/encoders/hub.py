"""Pretrained models from a hub, at a pinned revision."""

import re
from pathlib import Path

from distalign.errors import UserError

# Weights as safetensors only: nothing that is a pickle, no code.
PATTERNS = (
    "*.json", "*.txt", "*.model", "model.safetensors", "model-*.safetensors", "open_clip_model.safetensors",
    "text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)  # fmt: skip


def fetch(model: str, revision: str) -> Path:
    """Directory of a model's files, downloaded once and kept in the hub's cache.

    Args:
        model: `owner/name`.
        revision: Full commit hash (40 hex digits): branches and tags move.

    Raises:
        UserError: the revision is not a commit, or the model cannot be had (no network, unknown name).
    """
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise UserError(f"{model}: revision {revision!r} is not a commit; give its 40 hex digits.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(PATTERNS)))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise UserError(
            f"{model} at {revision}: cannot be downloaded ({type(error).__name__}); "
            "check the name and the network, or put the files into a directory and name that in the preset."
        ) from error
