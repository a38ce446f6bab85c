"""Ship newly pretrained weights: `python -m distalign.miniworld.pack results/mini/pretrain resources/miniworld`.

Components are stored in half precision with the facts of their training; then the quality of what is stored is
measured and entered in the manifest and the model card.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from distalign.miniworld.card import write_card, write_samples
from distalign.miniworld.pretrain.stages import Recipe
from distalign.miniworld.quality import Settings, measure, report
from distalign.miniworld.shipped import enter_quality, pack_component
from distalign.store.provenance import collect

COMPONENTS = (
    "backbone", "clip", "dino", "face_embedding", "concept_reader", "classifiers/loss", "classifiers/evaluation",
)  # fmt: skip
IMAGES_PER_CONCEPT = 64


def main() -> None:
    """Pack, measure, describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder of the pretraining stages")
    parser.add_argument("root", type=Path, help="resources/miniworld")
    parser.add_argument("--note", help="what a reader of the manifest should know besides")
    options = parser.parse_args()
    recipe = asdict(Recipe())
    commit = collect("backbone", recipe)["code"]["commit"]
    facts = {"command": "snakemake pretrain", "commit": commit, "recipe": recipe}
    if options.note:
        facts["note"] = options.note
    for name in COMPONENTS:
        pack_component(name, options.work / name, options.root, facts)
    settings = Settings()
    quality = measure(options.root, IMAGES_PER_CONCEPT, settings)
    print(report(quality))
    enter_quality(options.root, asdict(settings) | {"images_per_concept": IMAGES_PER_CONCEPT}, quality)
    write_samples(options.root, settings)
    write_card(options.root)


if __name__ == "__main__":
    main()
