"""Everything that looks at a generated image: face detector, classifiers, face embedding, image encoders."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from distalign.classifiers.models import Classifier, load_classifier
from distalign.config.attributes import ATTRIBUTES
from distalign.encoders import ClipEncoder, DinoEncoder, ImageEncoder
from distalign.faces.crop import align_faces
from distalign.faces.detector import Detector, FaceBatch, largest
from distalign.faces.embedding import embed, load_embedder


@dataclass(frozen=True, kw_only=True)
class WorldPaths:
    """Files a plan's images are made with and looked at by; directories except for `prompts`, JSON files."""

    prompts: tuple[Path, ...]
    backbone: Path
    classifier: Path
    clip: Path
    dino: Path
    face_embedding: Path

    @classmethod
    def of_job(cls, inputs: Any, **more: Path) -> Self:
        """Of a job's inputs by name, of which classifiers are given by their weights' file."""
        return cls(
            prompts=tuple(map(Path, inputs.prompts)),
            classifier=Path(inputs.classifier).parent,
            **{name: Path(inputs[name]) for name in ("backbone", "clip", "dino", "face_embedding")},
            **more,
        )

    def inputs(self) -> dict[str, Path]:
        """What a file made from these records as its inputs."""
        single = {name: path for name, path in vars(self).items() if isinstance(path, Path)}
        return single | {f"prompts/{path.stem}": path for path in self.prompts}


@dataclass(frozen=True)
class FaceReader:
    """Faces of generated images, and what the loss sees in them.

    Attributes:
        detect: images (B, 3, H, W) in [-1, 1] to the largest face of each.
        classifier: the classifier inside the loss.
        embed: images and landmarks (B, 5, 2) to unit vectors (B, D), differentiable.
        encoders: image encoders of the image loss by name ("clip", "dino"), differentiable.
    """

    detect: Callable[[Tensor], FaceBatch]
    classifier: Classifier
    embed: Callable[[Tensor, Tensor], Tensor]
    encoders: Mapping[str, ImageEncoder]


def load_reader(
    spec: Mapping[str, Any], paths: WorldPaths, device: torch.device, attributes: Iterable[str] = ()
) -> FaceReader:
    """The reader of a plan spec; its classifier must read `attributes`.

    Raises:
        UserError: a file is missing or damaged, or the classifier does not read an attribute.
    """
    classifier = load_classifier(paths.classifier, device, attributes)
    settings = spec["detector"]
    detector = Detector(settings["min_face"], settings["thresholds"], settings["scale"]).to(device)
    network = load_embedder(paths.face_embedding, device)
    size = network.config.input_size
    precision = getattr(torch, spec["precision"])
    clip = ClipEncoder(paths.clip, spec["encoders"]["clip"]["antialias"]).to(device, precision)
    dino = DinoEncoder(paths.dino, spec["encoders"]["dino"]["antialias"]).to(device, precision)
    return FaceReader(
        detect=lambda images: largest(detector.detect(images), images.shape[-2], images.shape[-1]),
        classifier=classifier,
        embed=lambda images, landmarks: embed(network, align_faces(images, landmarks, size)),
        encoders={"clip": clip, "dino": dino},
    )


@torch.no_grad()
def class_probabilities(classifier: Classifier, images: Tensor, faces: FaceBatch) -> dict[str, Tensor]:
    """Class probabilities (B, K) of each attribute; zeros where no face was found."""
    found = faces.found
    read = classifier.probabilities(classifier.chips(images[found], faces.boxes[found])) if found.any() else {}
    result = {}
    for attribute in classifier.attributes:
        values = images.new_zeros(len(images), len(ATTRIBUTES[attribute]))
        if read:
            values[found] = read[attribute].to(values.dtype)
        result[attribute] = values
    return result
