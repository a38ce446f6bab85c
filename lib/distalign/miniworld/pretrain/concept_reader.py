"""Training of the mini world's concept reader on pictures whose parts are drawn independently."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distalign.classifiers.concepts import ConceptReader
from distalign.miniworld.people import draw_people
from distalign.miniworld.pretrain.loop import Progress, optimise, to_signed, warm_cosine
from distalign.miniworld.renderer import render
from distalign.miniworld.scenes import balanced_labels, draw_scene, random_looks
from distalign.miniworld.world import PART_SIZES, STYLES, concepts


def draw_parts(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures uint8 (n, 3, 64, 64) of anyone in any look and style, and the parts (n, 4) they show."""
    rng = np.random.default_rng(seed)
    people = draw_people(*balanced_labels(n, rng), rng)
    looks = random_looks(n, rng)
    styles = np.where(rng.random(n) < 0.8, 0, rng.integers(len(STYLES), size=n))
    images = render(people, draw_scene(looks, people, styles, rng))
    return images, torch.tensor([look.parts for look in looks])


def train_concept_reader(images: Tensor, parts: Tensor, steps: int, seed: int, batch: int = 96) -> ConceptReader:
    """Train on what `draw_parts` gave, with noise, blur and small shifts."""
    torch.manual_seed(seed)
    reader = ConceptReader(PART_SIZES, {c.name: c.look.parts for c in concepts().values()})
    optimiser, schedule = optimise(reader.parameters(), 3e-3, warm_cosine(steps, 50), betas=(0.9, 0.999))
    progress = Progress("concept reader", steps, 100)
    for step in range(steps):
        index = torch.randint(len(images), (batch,))
        x = to_signed(images[index])
        x = x.flip(3) if torch.rand(()) < 0.5 else x
        if torch.rand(()) < 0.5:
            x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        x = x + 0.08 * torch.rand(()) * torch.randn_like(x) + 0.03 * torch.randn(batch, 1, 1, 1)
        logits = reader(x.clamp(-1, 1))
        loss = sum(F.cross_entropy(part, parts[index, i], label_smoothing=0.02) for i, part in enumerate(logits))
        assert isinstance(loss, Tensor)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        progress.add(step, loss=loss)
    return reader.eval().requires_grad_(False)


@torch.no_grad()
def part_accuracy(reader: ConceptReader, images: Tensor, parts: Tensor) -> list[float]:
    """Share of right answers per part, on uint8 pictures."""
    logits = reader(to_signed(images))
    return [float((part.argmax(1) == parts[:, i]).float().mean()) for i, part in enumerate(logits)]
