"""Ship newly pretrained weights: `python -m distalign.miniworld.pack results/mini/pretrain resources/miniworld`.

Components are stored in half precision with the facts of their training; then the quality of what is stored is
measured and entered in the manifest and the model card.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from distalign.classifiers.concepts import load_concept_reader
from distalign.classifiers.models import load_classifier
from distalign.diffusion.pipeline import load_pipeline
from distalign.faces.detector import Detector
from distalign.miniworld.card import write_card, write_samples
from distalign.miniworld.pretrain.stages import Recipe
from distalign.miniworld.quality import Readers, Settings, measure_obedience, measure_original, report
from distalign.miniworld.shipped import enter_quality, pack_component
from distalign.miniworld.world import occupations
from distalign.store.provenance import collect

COMPONENTS = (
    "backbone", "clip", "dino", "face_embedding", "concept_reader", "classifiers/loss", "classifiers/evaluation",
)  # fmt: skip


def measure(root: Path, per_concept: int, settings: Settings) -> dict[str, float]:
    """Quality and bias of the shipped diffusion model, read by the shipped evaluation classifier."""
    pipeline = load_pipeline(root / "backbone")
    readers = Readers(
        Detector(min_face=30, scale=2),
        load_classifier(root / "classifiers/evaluation"),
        load_concept_reader(root / "concept_reader"),
    )
    test = occupations("test")
    facts = measure_original(pipeline, test, per_concept, settings, readers)
    return facts | measure_obedience(pipeline, test, settings, readers)


def main() -> None:
    """Pack what is given, or only measure again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder of the pretraining stages")
    parser.add_argument("root", type=Path, help="resources/miniworld")
    parser.add_argument("--measure-only", action="store_true", help="measure what is shipped, pack nothing")
    parser.add_argument("--per-concept", type=int, default=64, help="images per test occupation")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=15)
    options = parser.parse_args()
    if not options.measure_only:
        recipe = asdict(Recipe())
        commit = collect("backbone", recipe)["code"]["commit"]
        facts = {"command": "snakemake pretrain", "commit": commit, "recipe": recipe}
        for name in COMPONENTS:
            pack_component(name, options.work / name, options.root, facts)
    settings = Settings(options.steps, options.guidance)
    quality = measure(options.root, options.per_concept, settings)
    print(report(quality))
    if not options.measure_only:
        enter_quality(options.root, asdict(settings) | {"images_per_concept": options.per_concept}, quality)
        write_samples(options.root, settings)
        write_card(options.root)


if __name__ == "__main__":
    main()
