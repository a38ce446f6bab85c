"""What a method is given: the model, prompts to fit on, and a way to look at images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from distalign.alignment.reading import FaceReader, class_probabilities
from distalign.alignment.validation import bias
from distalign.config.attributes import ATTRIBUTES
from distalign.diffusion.intervention import Batch, Intervention, render
from distalign.diffusion.pipeline import Pipeline
from distalign.diffusion.text import Padding
from distalign.methods.assignment import Target, cell_shares, cells
from distalign.prompts import Prompt
from distalign.store.seeds import stable_seed


@dataclass(frozen=True)
class Measured:
    """Images of P prompts, read by the classifier inside the loss.

    Attributes:
        counts: (P, K), faces in each cell of the aligned attributes (`assignment.cells`).
        images: generated per prompt.
        clip_t: mean cosine of image and prompt.
    """

    counts: np.ndarray
    images: int
    clip_t: float

    def shares(self) -> np.ndarray:
        """(P, K), of the faces of each prompt; nan for a prompt without any."""
        faces = self.counts.sum(axis=1, keepdims=True)
        return np.divide(self.counts, faces, out=np.full(self.counts.shape, np.nan), where=faces > 0)

    def scores(self, target: Target) -> dict[str, float]:
        """`target_distance`, `bias`, `face_found` and `clip_t`.

        The first two are of the aligned attributes taken together, means over the prompts with a face; missing without.
        """
        shares = self.shares()
        known = shares[~np.isnan(shares).any(axis=1)]
        result = {"face_found": float(self.counts.sum() / (len(self.counts) * self.images)), "clip_t": self.clip_t}
        if len(known):
            distances = np.abs(known - cell_shares(target)).sum(axis=1) / 2
            result["target_distance"] = float(distances.mean())
            result["bias"] = float(np.mean([bias(own) for own in known]))
        return result


@dataclass
class World:
    """The model a method is fitted and applied on. Sampling is as in the evaluations.

    Attributes:
        train: prompts to fit on; those of the test split where a run's settings say so.
        validation: prompts that settings are searched on.
        images: per prompt, where images are measured.
        gradient_batch: images differentiated at once, for methods that do; changes no result.
        decode_batch: images decoded at once; unset: as many as are sampled.
        load_reader: loads detector, classifier and encoders; methods that do not look at images never call it.
    """

    pipeline: Pipeline
    padding: Padding
    steps: int
    guidance: float
    micro_batch: int
    seed: int
    images: int
    train: Sequence[Prompt]
    validation: Sequence[Prompt]
    load_reader: Callable[[], FaceReader]
    gradient_batch: int = 1
    decode_batch: int | None = None

    @cached_property
    def reader(self) -> FaceReader:
        """What looks at images."""
        return self.load_reader()

    def measure(self, intervention: Intervention, prompts: Sequence[Prompt], target: Target) -> Measured:
        """What images of these prompts show, `images` of each, from noises that are always the same."""
        kinds, wanted = cells(target), [(row, i) for row in range(len(prompts)) for i in range(self.images)]
        number = {tuple(cell.values()): k for k, cell in enumerate(kinds)}
        counts, similarity = np.zeros((len(prompts), len(kinds))), []
        for start in range(0, len(wanted), self.micro_batch):
            part = wanted[start : start + self.micro_batch]
            own = [prompts[row] for row, _ in part]
            batch = Batch(own, [i for _, i in part], self.images, self.seed)
            seeds = [stable_seed(self.seed, "method", prompts[row].id, i) for row, i in part]
            how = (self.steps, self.guidance, self.padding, self.decode_batch)
            images = render(self.pipeline, intervention, batch, seeds, *how)
            with torch.no_grad():
                faces = self.reader.detect(images)
                read = class_probabilities(self.reader.classifier, images, faces)
                clip: Any = self.reader.encoders["clip"]
                texts = clip.encode_texts([prompt.text for prompt in own])
                similarity.append((clip.encode_images(images) * texts).sum(1).cpu())
            names = {a: [ATTRIBUTES[a][k] for k in read[a].argmax(1).tolist()] for a in kinds[0]}
            for b in np.flatnonzero(faces.found.cpu().numpy()):
                counts[part[b][0], number[tuple(names[a][b] for a in kinds[0])]] += 1
        return Measured(counts, self.images, float(torch.cat(similarity).mean()))
