"""Which class an image is to show, for methods that decide it image by image.

Drawn from the run's seed, the prompt and the image's index among those of its prompt, so that it depends neither on the
batch nor on the order of the images.
"""

from collections.abc import Mapping
from itertools import product

import numpy as np

from distalign.config.attributes import ATTRIBUTES
from distalign.diffusion.intervention import Batch
from distalign.store.seeds import stable_seed

Target = Mapping[str, Mapping[str, float]]
Cell = dict[str, str]  # attribute -> class


def cells(target: Target) -> list[Cell]:
    """Every combination of classes of the aligned attributes, attributes and classes in the order of ATTRIBUTES."""
    attributes = [attribute for attribute in ATTRIBUTES if attribute in target]
    return [
        dict(zip(attributes, names, strict=True))
        for names in product(*(ATTRIBUTES[attribute] for attribute in attributes))
    ]


def cell_shares(target: Target) -> np.ndarray:
    """The share (K,) of each of `cells`: attributes are independent in a target."""
    return np.array([np.prod([target[a].get(name, 0.0) for a, name in cell.items()]) for cell in cells(target)])


def assign(target: Target, batch: Batch, how: str) -> list[int]:
    """The cell, as an index into `cells`, of each image of a batch.

    `quota`: the images of a prompt have the target's shares as exactly as their number allows, in random order; where
    it does not divide, the remaining images go to the cells with the largest remainders, ties at random.
    `iid`: each image draws by itself.
    """
    shares = cell_shares(target)
    if how == "iid":
        seeds = [
            stable_seed(batch.seed, "assignment", prompt.id, index)
            for prompt, index in zip(batch.prompts, batch.index, strict=True)
        ]
        return [int(np.random.default_rng(seed).choice(len(shares), p=shares)) for seed in seeds]
    lists = {
        prompt.id: quota(shares, batch.images_per_prompt, stable_seed(batch.seed, "assignment", prompt.id))
        for prompt in batch.prompts
    }
    return [int(lists[prompt.id][index]) for prompt, index in zip(batch.prompts, batch.index, strict=True)]


def quota(shares: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Cells (count,) whose frequencies are the shares (K,), each rounded up or down, in random order."""
    generator = np.random.default_rng(seed)
    exact = shares / shares.sum() * count
    numbers = np.floor(exact + 1e-9).astype(int)
    remainders = exact - numbers
    ranked = np.lexsort([generator.random(len(shares)), -np.round(remainders, 9)])
    numbers[ranked[: count - numbers.sum()]] += 1
    return generator.permutation(np.repeat(np.arange(len(shares)), numbers))
