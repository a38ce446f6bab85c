"""Captioned pictures for pretraining: what the mini world's diffusion model and its encoders learn from."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from distalign.config.attributes import PAPER_ATTRIBUTES
from distalign.miniworld.captions import plan_captions, write_caption
from distalign.miniworld.people import Ints, draw_people
from distalign.miniworld.renderer import render
from distalign.miniworld.scenes import balanced_labels, draw_labels, draw_scene, random_looks
from distalign.miniworld.world import STYLES, concepts

_KIND_SHARES = {"occupation": 0.86, "sport": 0.07, "description": 0.07}
_PLAIN = 0.86  # share of plain photos; the rest is spread over the styles


@dataclass(frozen=True)
class Pictures:
    """`images` uint8 (n, 3, 64, 64), their captions, concept names ("" for nobody), class indices, style indices."""

    images: Tensor
    captions: list[str]
    concepts: list[str]
    labels: dict[str, Ints]
    styles: Ints

    def __len__(self) -> int:
        return len(self.captions)


def draw_pictures(
    n: int, seed: int, explicit: float = 0.42, anyone: float = 0.2, size: int = 64, skewed: bool = True
) -> Pictures:
    """Draw `n` captioned pictures; the same seed gives the same pictures.

    Attributes a caption leaves open follow the skew of its concept, or are uniform if not `skewed`.
    """
    rng = np.random.default_rng(seed)
    by_kind = {kind: [c for c in concepts().values() if c.kind == kind] for kind in _KIND_SHARES}
    kinds = rng.choice(list(_KIND_SHARES), size=n, p=list(_KIND_SHARES.values()))
    chosen = [by_kind[k][rng.integers(len(by_kind[k]))] for k in kinds]
    drafts, forced = plan_captions(chosen, explicit, anyone, rng)
    typical, balanced = draw_labels(chosen, rng), balanced_labels(n, rng)
    uniform = np.array([d.concept is None or not skewed for d in drafts])
    labels = {
        a: np.where(forced[a] >= 0, forced[a], np.where(uniform, balanced[i], typical[i]))
        for i, a in enumerate(PAPER_ATTRIBUTES)
    }
    styles = np.where(rng.random(n) < _PLAIN, 0, rng.integers(1, len(STYLES), size=n))
    people = draw_people(labels["gender"], labels["race"], labels["age"], rng)
    anywhere = random_looks(n, rng)
    looks = [d.concept.look if d.concept else look for d, look in zip(drafts, anywhere, strict=True)]
    scene = draw_scene(looks, people, styles, rng)
    images = torch.empty(n, 3, size, size, dtype=torch.uint8)
    for start in tqdm(range(0, n, 512), desc="painting", disable=None):
        index = np.arange(start, min(start + 512, n))
        images[start : start + 512] = render(people.take(index), scene.take(index), size)
    captions = [write_caption(d, int(s), rng) for d, s in zip(drafts, styles, strict=True)]
    return Pictures(images, captions, [d.concept.name if d.concept else "" for d in drafts], labels, styles)


def save_pictures(pictures: Pictures, directory: Path) -> None:
    """Write pictures.safetensors and captions.json."""
    directory.mkdir(parents=True, exist_ok=True)
    columns = {a: torch.as_tensor(v) for a, v in pictures.labels.items()}
    tensors = {"images": pictures.images, "styles": torch.as_tensor(pictures.styles), **columns}
    save_file(tensors, directory / "pictures.safetensors")
    words = {"captions": pictures.captions, "concepts": pictures.concepts}
    (directory / "captions.json").write_text(json.dumps(words))


def load_pictures(directory: Path) -> Pictures:
    """Read what `save_pictures` wrote."""
    tensors = load_file(directory / "pictures.safetensors")
    words = json.loads((directory / "captions.json").read_text())
    labels = {a: tensors[a].numpy() for a in PAPER_ATTRIBUTES}
    return Pictures(tensors["images"], words["captions"], words["concepts"], labels, tensors["styles"].numpy())
