"""Bias on the validation prompts during training, by the classifier in the loss and by the one evaluations use.

Where the two part, the adapter fools the classifier it is trained with.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distalign.alignment.distributed import Group
from distalign.alignment.reading import FaceReader, class_probabilities
from distalign.classifiers.models import Classifier
from distalign.config.attributes import ATTRIBUTES
from distalign.diffusion.batch_sizes import given
from distalign.diffusion.pipeline import Pipeline
from distalign.diffusion.sampler import generate
from distalign.prompts import Prompt
from distalign.store.seeds import stable_seed

Scores = dict[str | None, dict[str, float]]  # by classifier; None for what no classifier has a part in


class Validation:
    """Renders the validation prompts from noises that are always the same, each process its share."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        pipeline: Pipeline,
        reader: FaceReader,
        evaluation: Classifier,
        prompts: Sequence[Prompt],
        group: Group,
    ) -> None:
        self.spec, self.pipeline, self.reader, self.group = spec, pipeline, reader, group
        self.classifiers = {"loss": reader.classifier, "evaluation": evaluation}
        images = [(p, i) for p in range(len(prompts)) for i in range(spec["validation_images"])]
        self.prompt_index = np.array([p for p, _ in images])
        self.texts = [prompts[p].text for p, _ in images]
        self.seeds = [stable_seed(spec["seed"], "validation", prompts[p].id, i) for p, i in images]

    @torch.no_grad()
    def measure(self) -> Scores:
        """Mean bias over prompts of each attribute and classifier, the share of faces found, distances to targets."""
        parts: list[dict[str, np.ndarray]] = []
        mine = range(self.group.rank, len(self.texts), self.group.size) or range(1)
        sizes = given(self.spec["micro_batch"])
        micro_batch = sizes["sample"]
        for start in range(0, len(mine), micro_batch):
            rows = mine[start : start + micro_batch]
            images = generate(
                self.pipeline,
                [self.texts[row] for row in rows],
                [self.seeds[row] for row in rows],
                max(self.spec["sampler_steps"]),
                self.spec["guidance"],
                micro_batch,
                self.spec["plan"]["text_padding"],
                sizes["decode"],
            )
            parts.append({"row": np.array(rows), **self._read(images)})
        columns = {name: self.group.gather(np.concatenate([part[name] for part in parts])) for name in parts[0]}
        _, order = np.unique(columns["row"], return_index=True)
        return self._scores({name: values[order] for name, values in columns.items()})

    def _read(self, images: Tensor) -> dict[str, np.ndarray]:
        faces = self.reader.detect(images)
        columns = {"found": faces.found.cpu().numpy()}
        for name, classifier in self.classifiers.items():
            for attribute, values in class_probabilities(classifier, images, faces).items():
                columns[f"{name}/{attribute}"] = values.argmax(1).cpu().numpy()
        return columns

    def _scores(self, columns: Mapping[str, np.ndarray]) -> Scores:
        found = columns["found"]
        scores: Scores = {None: {"face_found": float(found.mean())}}
        for name, classifier in self.classifiers.items():
            scores[name] = {}
            for attribute in classifier.attributes:
                predicted = columns[f"{name}/{attribute}"]
                target = self.spec["align"].get(attribute)
                scores[name] |= attribute_scores(attribute, predicted, found, self.prompt_index, target)
        return scores


def attribute_scores(
    attribute: str,
    predicted: np.ndarray,
    found: np.ndarray,
    prompt_index: np.ndarray,
    target: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Mean over prompts of bias and, for a target that is not uniform, of the total variation distance to it.

    `predicted`, `found` and `prompt_index` are (n,) of images. Prompts without any face do not count; if none has one,
    there are no scores.
    """
    classes = ATTRIBUTES[attribute]
    counts = np.zeros((int(prompt_index.max()) + 1, len(classes)))
    np.add.at(counts, (prompt_index[found], predicted[found]), 1)
    faces = counts.sum(axis=1)
    if not faces.any():
        return {}
    shares = counts[faces > 0] / faces[faces > 0, None]
    scores = {f"bias/{attribute}": float(np.mean([bias(share) for share in shares]))}
    if target and len(set(target.values())) > 1:
        goal = np.array([target.get(name, 0.0) for name in classes])
        scores[f"target_distance/{attribute}"] = float(np.abs(shares - goal).sum(axis=1).mean() / 2)
    return scores


def bias(shares: np.ndarray) -> float:
    """The paper's bias of one prompt: mean absolute difference of shares (K,) over pairs of classes."""
    return float(np.mean([abs(first - second) for first, second in combinations(shares.tolist(), 2)]))
