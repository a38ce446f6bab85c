"""A finetuning of a tiny model under fake judges: everything real but the networks that look at images."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distalign.alignment.originals import write_originals
from distalign.alignment.plan import TrainingPlan
from distalign.alignment.reading import FaceReader
from distalign.alignment.trainer import FinetunePaths, Judges
from distalign.alignment.worker import main
from distalign.classifiers.models import Classifier, build_classifier
from distalign.config.attributes import PAPER_ATTRIBUTES
from distalign.diffusion.pipeline import load_pipeline
from distalign.faces.bank import FaceBank
from distalign.faces.crop import align_faces
from distalign.faces.detector import FaceBatch
from distalign.prompts import load_split

CONCEPTS = {"train": ["doctor", "plumber", "actor at sea"], "validation": ["judge"], "test": ["cook"]}


def random_matrix(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) / rows**0.5


class RandomEncoder:
    """Unit vectors by a fixed random projection of the image."""

    def __init__(self, seed: int) -> None:
        self.matrix = random_matrix(3 * 8 * 8, 5, seed)

    def encode_images(self, images: Tensor) -> Tensor:
        return F.normalize(F.interpolate(images, (8, 8)).flatten(1) @ self.matrix.to(images.device), dim=1)


def detect(images: Tensor) -> FaceBatch:
    """A face in the middle, but for images that are darker on the left than on the right by some margin."""
    height, width = images.shape[-2:]
    found = images[..., : width // 2].mean((1, 2, 3)) > images[..., width // 2 :].mean((1, 2, 3)) - 0.15
    box = torch.tensor([0.25 * width, 0.2 * height, 0.75 * width, 0.8 * height], device=images.device)
    points = (
        torch.tensor([[0.4, 0.4], [0.6, 0.4], [0.5, 0.5], [0.42, 0.62], [0.58, 0.62]], device=images.device) * width
    )
    return FaceBatch(found, box * found[:, None], points * found[:, None, None], found.float())


def classifier(seed: int) -> Classifier:
    torch.manual_seed(seed)
    network = build_classifier("convnet", ["gender", "race"], 8, 1.5).eval().requires_grad_(False)
    for head in network.heads.values():
        head.weight.mul_(20)
    return network


def tiny_reader(device: torch.device | str = "cpu") -> FaceReader:
    matrix = random_matrix(3 * 8 * 8, 6, 1).to(device)
    return FaceReader(
        detect=detect,
        classifier=classifier(1).to(device),
        embed=lambda images, points: F.normalize(align_faces(images, points, 8).flatten(1) @ matrix, dim=1),
        encoders={"clip": RandomEncoder(2), "dino": RandomEncoder(3)},
    )


def tiny_judges(spec: Mapping[str, Any], paths: FinetunePaths, device: torch.device) -> Judges:
    labels = torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(2))
    bank = FaceBank(
        F.normalize(random_matrix(16, 6, 4), dim=1), {name: labels[:, i] for i, name in enumerate(PAPER_ATTRIBUTES)}
    )
    return Judges(tiny_reader(device), classifier(2).to(device), bank.to(device))


def tiny_plan_spec(**changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "seed": 3,
        "iterations": 3,
        "images_per_step": 4,
        "prompts_per_step": 2,
        "sampler_steps": [3, 4],
        "guidance": 3.0,
        "text_padding": "longest",
        "precision": "float32",
        "micro_batch": {"sample": 3, "gradient": 2},
    }
    return spec | changes


def tiny_spec(**changes: Any) -> dict[str, Any]:
    plan = tiny_plan_spec()
    shared = {key: plan[key] for key in plan.keys() - {"iterations", "text_padding", "precision"}}
    spec: dict[str, Any] = {
        **shared,
        "plan": plan,
        "method": "adjusted_dft",
        "align": {
            "gender": {"female": 0.5, "male": 0.5},
            "race": dict(zip(PAPER_ATTRIBUTES["race"], [0.4, 0.2, 0.2, 0.2], strict=True)),
        },
        "train": ["text_encoder", "unet"],
        "rank": 2,
        "gradient": {"weights": "adjusted", "keep_graph": False},
        "iterations": 5,
        "learning_rate": 1e-2,
        "weight_decay": 0.01,
        "ema_decay": 0.9,
        "confidence": 0.5,
        "loss": {
            "image": 2.0,
            "agree": {"gender": 0.2, "race": 0.6},
            "face_region": {"gender": 0.2, "race": 0.3},
            "face": 0.5,
            "face_confidence": 0.6,
        },
        "noise_period": 3,
        "checkpoint_every": 2,
        "validate_every": 4,
        "validation_images": 3,
    }
    return spec | changes


def tiny_paths(backbone: Path, directory: Path) -> FinetunePaths:
    """Paths of a run in `directory`; its prompts and originals are written."""
    unused = directory / "unused"
    paths = FinetunePaths(
        prompts=(directory / "prompts.json",),
        backbone=backbone,
        classifier=unused,
        clip=unused,
        dino=unused,
        face_embedding=unused,
        evaluation_classifier=unused,
        bank=unused,
        originals=directory / "originals.parquet",
        run=directory / "run",
    )
    directory.mkdir(parents=True, exist_ok=True)
    unused.touch()
    paths.prompts[0].write_text(json.dumps({"template": "{a} {concept}", "splits": CONCEPTS}))
    spec = tiny_plan_spec()
    plan = TrainingPlan.from_spec(spec, load_split(paths.prompts, "train"))
    write_originals(spec, plan, load_pipeline(backbone), tiny_reader(), paths.originals, {})
    return paths


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), tiny_judges))
