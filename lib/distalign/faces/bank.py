"""A bank of labelled faces: embeddings with classes, for the targets of the face loss and the votes of the reader."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from distalign.config.attributes import ATTRIBUTES
from distalign.errors import UserError
from distalign.faces.crop import align_faces
from distalign.faces.dataset import UNKNOWN, FaceSet
from distalign.faces.embedding import SFNet, embed
from distalign.faces.weights import load_network, save_network

BATCH = 256


@dataclass(frozen=True)
class FaceBank:
    """Unit embeddings (M, D) float32 and, per attribute, class indices (M,) int64."""

    embeddings: Tensor
    labels: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.embeddings)

    def to(self, device: torch.device | str) -> "FaceBank":
        """The same bank on another device."""
        return FaceBank(self.embeddings.to(device), {name: label.to(device) for name, label in self.labels.items()})

    @torch.no_grad()
    def nearest(self, embeddings: Tensor, classes: Mapping[str, Tensor]) -> Tensor:
        """The bank's most similar face, by cosine, among those of the wanted classes.

        Args:
            embeddings: (B, D) unit vectors.
            classes: Per attribute, wanted class indices (B,); -1 wants any. An attribute that the bank has no labels
                of is not asked for.

        Returns:
            (B, D) unit vectors of the bank.

        Raises:
            UserError: the bank has no face of a wanted combination of classes.
        """
        allowed = torch.ones(len(embeddings), len(self), dtype=torch.bool, device=embeddings.device)
        asked = {attribute: wanted for attribute, wanted in classes.items() if attribute in self.labels}
        for attribute, wanted in asked.items():
            allowed &= (wanted[:, None] == self.labels[attribute]) | (wanted[:, None] == UNKNOWN)
        empty = (~allowed.any(1)).nonzero().squeeze(1).tolist()
        if empty:
            words = {ATTRIBUTES[name][int(wanted[empty[0]])] for name, wanted in asked.items() if wanted[empty[0]] >= 0}
            raise UserError(f"the face bank has no face that is {' and '.join(sorted(words))}; add some to its data.")
        cosine = embeddings.float() @ self.embeddings.T
        return self.embeddings[cosine.masked_fill(~allowed, -2).argmax(1)]


@torch.no_grad()
def build_face_bank(network: SFNet, faces: FaceSet) -> FaceBank:
    """Embed every face of a labelled set.

    An attribute that no face has a label of (race in CelebA) is not in the bank; faces that lack another are left out.

    Raises:
        UserError: no face is left.
    """
    labels = {name: label for name, label in faces.labels.items() if (label != UNKNOWN).any()}
    complete = [label != UNKNOWN for label in labels.values()]
    if not complete or not (known := torch.stack(complete).all(0).nonzero().squeeze(1)).numel():
        raise UserError("no face of the bank's data set has all its labels; choose another data set.")
    device = next(network.parameters()).device
    parts = []
    for rows in known.split(BATCH):
        images, landmarks = faces.batch(rows).to(device), faces.landmarks[rows].to(device)
        parts.append(embed(network, align_faces(images, landmarks, network.config.input_size)).cpu())
    return FaceBank(torch.cat(parts), {name: label[known] for name, label in labels.items()})


def save_bank(path: Path, bank: FaceBank) -> None:
    """Write a bank as one safetensors file; classes go with their words."""
    tensors = {"embeddings": bank.embeddings, **{f"labels/{name}": label for name, label in bank.labels.items()}}
    save_network(path, tensors, {"classes": {name: ATTRIBUTES[name] for name in bank.labels}})


def load_bank(path: Path, device: torch.device | str = "cpu") -> FaceBank:
    """A bank written by `save_bank`.

    Raises:
        UserError: missing, cut off or foreign file.
    """
    tensors, header = load_network(path)
    return FaceBank(tensors["embeddings"], {name: tensors[f"labels/{name}"] for name in header["classes"]}).to(device)
