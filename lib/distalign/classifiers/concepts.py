"""Reading which concept (occupation, ...) a picture shows, from the parts its look is made of.

A concept's look is a combination of parts (background, clothes, ...). The network reads each part on its own; the
concept is the one whose combination is most likely. "Is it still a picture of this occupation?" can thus be asked of
images that no attribute classifier has a say in.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from distalign.classifiers.models import ARCHITECTURES
from distalign.faces.weights import load_network, save_network

FILE = "model.safetensors"


class ConceptReader(nn.Module):
    """Reads parts from whole pictures, and from them the concept.

    Args:
        sizes: Number of kinds of each part.
        looks: Per concept, the index of each of its parts.
    """

    def __init__(self, sizes: Sequence[int], looks: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.looks = {name: tuple(parts) for name, parts in looks.items()}
        self.trunk, width = ARCHITECTURES["convnet"]()
        self.heads = nn.ModuleList([nn.Linear(width, size) for size in self.sizes])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits (B, size) of each part for pictures (B, 3, H, W) in [-1, 1]."""
        features = self.trunk(images)
        return [head(features) for head in self.heads]

    @torch.no_grad()
    def recognise(self, images: Tensor) -> list[str]:
        """The most likely concept of each picture (B, 3, H, W) in [-1, 1]."""
        names = list(self.looks)
        table = torch.tensor([self.looks[name] for name in names], device=images.device)
        scores = sum(logits.log_softmax(1)[:, table[:, i]] for i, logits in enumerate(self(images)))
        assert isinstance(scores, Tensor)
        return [names[i] for i in scores.argmax(1).tolist()]


def save_concept_reader(directory: Path, reader: ConceptReader) -> None:
    """Write a reader to `directory/model.safetensors`."""
    save_network(Path(directory) / FILE, reader.state_dict(), {"sizes": reader.sizes, "looks": reader.looks})


def load_concept_reader(directory: Path, device: torch.device | str = "cpu") -> ConceptReader:
    """The reader in a directory, frozen and in evaluation mode.

    Raises:
        UserError: missing, cut off or foreign file.
    """
    tensors, header = load_network(Path(directory) / FILE)
    reader = ConceptReader(header["sizes"], header["looks"])
    reader.load_state_dict(tensors)
    return reader.eval().requires_grad_(False).to(device)
