"""An independent reader of attributes: the vote of the nearest labelled faces in the space of a face embedding.

Nothing is trained on the labels, so what fools a trained classifier does not fool it in the same way.
"""

from typing import Protocol

import torch
from torch import Tensor

from distalign.config.attributes import ATTRIBUTES
from distalign.faces.bank import FaceBank
from distalign.faces.dataset import UNKNOWN

NEAREST_DISTANCE = 1e-3  # a face that is itself in the bank does not silence the others entirely


class ChipEncoder(Protocol):
    """What is needed of an image encoder here (`distalign.encoders` has them)."""

    def encode_images(self, images: Tensor) -> Tensor:
        """Unit vectors (B, D) float32 of images (B, 3, H, W) in [-1, 1]."""
        ...


class Reader:
    """Reads attributes by a distance-weighted vote.

    Args:
        bank: Unit embeddings of labelled faces.
        neighbours: How many nearest faces vote, for each attribute.
    """

    def __init__(self, bank: FaceBank, neighbours: int) -> None:
        self.bank = bank
        self.neighbours = neighbours

    @torch.no_grad()
    def probabilities(self, embeddings: Tensor) -> dict[str, Tensor]:
        """Shares of the vote (B, K) for each attribute, for unit embeddings (B, D) of faces.

        A face votes with the inverse of its distance (the chord, sqrt(2 - 2 cos)).
        """
        cosine = embeddings.float() @ self.bank.embeddings.T
        shares = {}
        for attribute, labels in self.bank.labels.items():
            similarity = cosine.masked_fill(labels == UNKNOWN, -torch.inf)
            nearest, index = similarity.topk(min(self.neighbours, int((labels != UNKNOWN).sum())), dim=1)
            weight = 1 / (2 - 2 * nearest).clamp(min=NEAREST_DISTANCE**2).sqrt()
            votes = weight.new_zeros(len(embeddings), len(ATTRIBUTES[attribute]))
            votes.scatter_add_(1, labels[index], weight)
            shares[attribute] = votes / votes.sum(1, keepdim=True)
        return shares
