"""The model card of the shipped weights, with samples."""

from pathlib import Path

import torch
from PIL import Image

from distalign.config.attributes import PAPER_ATTRIBUTES
from distalign.diffusion.pipeline import load_pipeline
from distalign.miniworld.captions import Draft
from distalign.miniworld.quality import Settings, paint
from distalign.miniworld.renderer import contact_sheet
from distalign.miniworld.shipped import read_manifest
from distalign.miniworld.world import concepts, occupations

_INTRODUCTION = """# Model card: the mini world

Small models trained from nothing on pictures that a program paints: an ordinary diffusers Stable Diffusion pipeline
(64 x 64 pixels), a CLIP, a DINOv2, a face-recognition network, two attribute classifiers and a reader of looks.
They exist so that every step of the pipeline runs anywhere, in minutes, on a world whose truth is known.

* **Not people.** The faces are drawings. Attribute labels are what the program was asked to paint; two genders, four
  groups and two ages are the limits of the paper this project reproduces, not statements about anybody.
* **Biased on purpose.** Captions of occupations come with skewed attributes (`lib/distalign/miniworld/world.py`); the
  diffusion model learns and, by guidance, amplifies them. That is what finetuning has to undo.
* **For nothing else.** No result on these models says how large a bias any real system has.
"""


def write_samples(root: Path, settings: Settings) -> None:
    """samples.png: a row per occupation of plain prompts, then rows that spell out attributes."""
    pipeline = load_pipeline(root / "backbone")
    drafts = [Draft(c, {}) for c in occupations("test")[::4] for _ in range(12)]
    guard = concepts()["school guard"]
    pairs = [(a, c) for a, classes in PAPER_ATTRIBUTES.items() for c in classes]
    drafts += [Draft(guard, {a: c}) for a, c in pairs for _ in range(3)]
    images = paint(pipeline, drafts, settings, "samples")
    sheet = contact_sheet(((images + 1) * 127.5).round().to(torch.uint8), columns=12)
    Image.fromarray(sheet).resize((sheet.shape[1] * 3 // 2, sheet.shape[0] * 3 // 2)).save(root / "samples.png")


def write_card(root: Path) -> None:
    """README.md from the manifest."""
    manifest = read_manifest(root)
    measured, quality = manifest["measured"], manifest["quality"]
    lines = [
        _INTRODUCTION,
        f"Measured on {measured['images_per_concept']} images per test occupation, {measured['steps']} steps, guidance "
        f"{measured['guidance']:g}, by the evaluation classifier (faces found by MTCNN):",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value:.3f} |" for name, value in quality.items()),
        "",
        "Six test occupations, then the attribute words of a school guard (three pictures each): female, male; white, "
        "asian, black, indian; young, old.",
        "",
        "![samples](samples.png)",
        "",
        "| component | commit | command |",
        "|---|---|---|",
        *(f"| {n} | `{c['commit']}` | `{c['command']}` |" for n, c in manifest["components"].items()),
    ]
    (root / "README.md").write_text("\n".join(lines) + "\n")
