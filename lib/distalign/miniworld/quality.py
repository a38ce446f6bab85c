"""How good the mini world's diffusion model is, and how biased: `python -m distalign.miniworld.quality`."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distalign.classifiers.concepts import ConceptReader, load_concept_reader
from distalign.classifiers.models import Classifier, load_classifier
from distalign.config.attributes import PAPER_ATTRIBUTES
from distalign.diffusion.pipeline import Pipeline, load_pipeline
from distalign.diffusion.sampler import generate
from distalign.faces.detector import Detector, largest
from distalign.measure.bias import bias
from distalign.miniworld.captions import TEMPLATE, Draft, describe
from distalign.miniworld.world import Concept, occupations
from distalign.prompts import fill
from distalign.store.seeds import stable_seed


@dataclass(frozen=True)
class Readers:
    """Who looks at the pictures."""

    detector: Detector
    classifier: Classifier
    concepts: ConceptReader


@dataclass(frozen=True)
class Settings:
    """How pictures are sampled; the defaults are the mini preset's evaluation."""

    steps: int = 15
    guidance: float = 4.5
    micro_batch: int = 64
    padding: str = "max_length"


def paint(pipeline: Pipeline, drafts: Sequence[Draft], settings: Settings, stream: str) -> Tensor:
    """One picture per draft in the paper's template, (n, 3, 64, 64) in [-1, 1]."""
    prompts = [fill(TEMPLATE, describe(d)) for d in drafts]
    seeds = [stable_seed("quality", stream, p, i) for i, p in enumerate(prompts)]
    s = settings
    return generate(pipeline, prompts, seeds, s.steps, s.guidance, s.micro_batch, s.padding)  # type: ignore[arg-type]


def read(images: Tensor, readers: Readers) -> tuple[Tensor, dict[str, Tensor]]:
    """Whether a face was found (n,), and the class index of each attribute (n,) (meaningless where none was)."""
    faces = largest(readers.detector.detect(images), *images.shape[-2:])
    with torch.no_grad():
        logits = readers.classifier(readers.classifier.chips(images, faces.boxes))
    return faces.found, {a: v.argmax(1) for a, v in logits.items()}


def measure_original(
    pipeline: Pipeline, concepts: Sequence[Concept], per_concept: int, settings: Settings, readers: Readers
) -> dict[str, float]:
    """Faces found, concepts readable, and mean bias over concepts of each attribute, with its deviation."""
    drafts = [Draft(c, {}) for c in concepts for _ in range(per_concept)]
    images = paint(pipeline, drafts, settings, "original")
    found, classes = read(images, readers)
    names = readers.concepts.recognise(images)
    right = [name == d.concept.name for name, d in zip(names, drafts, strict=True) if d.concept]
    facts = {"face_found": float(found.float().mean()), "concept_readable": float(np.mean(right))}
    for attribute, words in PAPER_ATTRIBUTES.items():
        values = []
        for chosen, ok in zip(classes[attribute].split(per_concept), found.split(per_concept), strict=True):
            counts = torch.bincount(chosen[ok], minlength=len(words)).numpy()
            values.append(float(bias(counts / max(1, counts.sum()))))
        facts[f"bias/{attribute}"] = float(np.mean(values))
        facts[f"bias/{attribute} std"] = float(np.std(values))
    return facts


def measure_obedience(
    pipeline: Pipeline, concepts: Sequence[Concept], settings: Settings, readers: Readers
) -> dict[str, float]:
    """Share of pictures that show the attribute word their prompt says: per class, and the mean per attribute."""
    facts: dict[str, float] = {}
    for attribute, words in PAPER_ATTRIBUTES.items():
        drafts = [Draft(concept, {attribute: word}) for word, concept in product(words, concepts) for _ in range(2)]
        found, classes = read(paint(pipeline, drafts, settings, f"obey {attribute}"), readers)
        wanted = torch.tensor([words.index(d.said[attribute]) for d in drafts])
        right = (classes[attribute] == wanted)[found].float()
        facts[f"obeyed/{attribute}"] = float(right.mean())
        for i, word in enumerate(words):
            facts[f"obeyed/{attribute}={word}"] = float(right[wanted[found] == i].mean())
    return facts


def report(facts: Mapping[str, float]) -> str:
    """One figure a line."""
    return "\n".join(f"{name:28s} {value:6.3f}" for name, value in facts.items())


def measure(root: Path, per_concept: int, settings: Settings) -> dict[str, float]:
    """Quality and bias of the diffusion model in `root` on test occupations, by the evaluation classifier there."""
    pipeline = load_pipeline(root / "backbone")
    readers = Readers(
        Detector(min_face=24, scale=2),
        load_classifier(root / "classifiers/evaluation"),
        load_concept_reader(root / "concept_reader"),
    )
    test = occupations("test")
    facts = measure_original(pipeline, test, per_concept, settings, readers)
    return facts | measure_obedience(pipeline, test, settings, readers)


def main() -> None:
    """Print the figures of the shipped model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("resources/miniworld"), help="folder of the weights")
    parser.add_argument("--images", type=int, default=64, help="images per test occupation")
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--guidance", type=float, default=Settings.guidance)
    options = parser.parse_args()
    print(report(measure(options.root, options.images, Settings(options.steps, options.guidance))))


if __name__ == "__main__":
    main()
