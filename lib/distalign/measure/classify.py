"""Look at generated images: the largest face, perceived attributes by every classifier, similarity, concept."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from distalign.alignment.reading import class_probabilities
from distalign.classifiers import Classifier, load_classifier
from distalign.classifiers.concepts import ConceptReader, load_concept_reader
from distalign.classifiers.reader import Reader
from distalign.config.attributes import READER
from distalign.encoders import ClipEncoder, DinoEncoder
from distalign.encoders.interface import unit
from distalign.errors import UserError
from distalign.faces.bank import load_bank
from distalign.faces.columns import face_columns, where_found
from distalign.faces.crop import align_faces
from distalign.faces.dataset import to_float
from distalign.faces.detector import Detector, FaceBatch, largest
from distalign.faces.embedding import SFNet, embed, load_embedder
from distalign.prompts import Prompt
from distalign.store.parquet import (
    CLASSIFIED,
    FEATURES,
    IMAGES,
    ParquetWriter,
    class_columns,
    decode_image,
    read_batches,
)

KEY = ["prompt_id", "index", "noise_seed"]


@dataclass(frozen=True)
class AttributeReader:
    """The independent reader, and the network in whose space it looks."""

    reader: Reader
    network: SFNet

    def __call__(self, images: Tensor, faces: FaceBatch) -> dict[str, Tensor]:
        """Shares of the vote (B, K) per attribute."""
        chips = align_faces(images, faces.landmarks, self.network.config.input_size)
        return self.reader.probabilities(embed(self.network, chips))


@dataclass(frozen=True)
class Observers:
    """Everything that looks at an image."""

    detector: Detector
    classifiers: Mapping[str, Classifier]
    reader: AttributeReader | None
    clip: ClipEncoder
    dino: DinoEncoder
    concepts: ConceptReader | None
    device: torch.device


def load_observers(
    spec: Mapping[str, Any], paths: Mapping[str, Path], classifiers: Mapping[str, Path], device: torch.device
) -> Observers:
    """The observers of a classify spec.

    Args:
        spec: What `Study.classify_spec` says.
        paths: Where `clip`, `dino` and, if there are, `reader` (a bank), `face_embedding` and `concept_reader` lie.
        classifiers: Directories of the classifiers by name.
        device: Where to compute.

    Raises:
        UserError: missing or damaged files, or a classifier that lacks an attribute.
    """
    clip = ClipEncoder(paths["clip"], spec["encoders"]["clip"]["antialias"]).to(device)
    dino = DinoEncoder(paths["dino"], spec["encoders"]["dino"]["antialias"]).to(device)
    reader = None
    if "reader" in paths:
        votes = Reader(load_bank(paths["reader"], device), spec["reader"]["neighbours"])
        reader = AttributeReader(votes, load_embedder(paths["face_embedding"], device))
    return Observers(
        detector=Detector(**spec["detector"]).to(device),
        classifiers={
            name: load_classifier(path, device, spec["classifiers"][name]["labels"])
            for name, path in classifiers.items()
        },
        reader=reader,
        clip=clip,
        dino=dino,
        concepts=load_concept_reader(paths["concept_reader"], device) if "concept_reader" in paths else None,
        device=device,
    )


@torch.no_grad()
def classify(
    images: Path,
    originals: Path | None,
    output: Path,
    features: Path,
    prompts: Sequence[Prompt],
    observers: Observers,
    provenance: Mapping[str, Any],
    batch: int,
) -> None:
    """Write what is seen in every image, schema CLASSIFIED, in the order of the images.

    Args:
        images: Parquet of schema IMAGES.
        originals: The original's images of the same noises in the same order; None leaves clip_i and dino null.
        output: Where to write.
        features: Where to write the images' DINO features, schema FEATURES.
        prompts: The prompts of the images.
        observers: Who looks.
        provenance: For the file's metadata.
        batch: Images at once.

    Raises:
        UserError: unreadable files, or originals of other noises.
    """
    by_id = {prompt.id: prompt for prompt in prompts}
    texts = dict(zip(by_id, observers.clip.encode_texts([prompt.text for prompt in prompts]), strict=True))
    read = {name: classifier.attributes for name, classifier in observers.classifiers.items()}
    if observers.reader is not None:
        read[READER] = tuple(observers.reader.reader.bank.labels)
    seen = ParquetWriter(output, CLASSIFIED(read), provenance)
    encoded = ParquetWriter(features, FEATURES, provenance)
    with seen as writer, encoded as feature_writer:
        for rows, original in _pairs(images, originals, batch):
            pictures = _pictures(rows, observers.device)
            ids = rows["prompt_id"].to_pylist()
            key = {"prompt_id": rows["prompt_id"], "index": rows["index"]}
            dino = observers.dino.features(pictures)
            feature_writer.write(key | {"dino": dino.cpu().numpy()})
            columns = key | _faces(pictures, observers)
            columns |= _similarity(pictures, unit(dino), torch.stack([texts[i] for i in ids]), original, observers)
            columns["concept_readable"] = _readable(pictures, [by_id[i].concept for i in ids], observers)
            writer.write(columns)


def _pairs(images: Path, originals: Path | None, batch: int) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch | None]]:
    """Batches of images, each with the originals of the same noises."""
    others = read_batches(originals, IMAGES, batch) if originals else repeat(None)
    for rows, original in zip(read_batches(images, IMAGES, batch), others, strict=originals is not None):
        if original is not None and not rows.select(KEY).equals(original.select(KEY)):
            raise UserError(
                f"{originals}: not the originals of {images}: other prompts or noises. Generate both again."
            )
        yield rows, original


def _pictures(rows: pa.RecordBatch, device: torch.device) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] of a batch."""
    decoded = [decode_image(cell["bytes"]) for cell in rows["image"].to_pylist()]
    return to_float(torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).to(device))


def _faces(images: Tensor, observers: Observers) -> dict[str, Any]:
    """Columns of the largest face and of what each classifier makes of it."""
    faces = largest(observers.detector.detect(images), *images.shape[-2:])
    columns = face_columns(faces)
    read = {name: class_probabilities(classifier, images, faces) for name, classifier in observers.classifiers.items()}
    if observers.reader is not None:
        read[READER] = observers.reader(images, faces)
    for name, probabilities in read.items():
        for attribute, values in probabilities.items():
            for index, column in enumerate(class_columns(attribute, name)):
                columns[column] = where_found(columns["found"], values[:, index])
    return columns


def _similarity(
    images: Tensor, dino: Tensor, texts: Tensor, original: pa.RecordBatch | None, observers: Observers
) -> dict[str, Any]:
    """Cosines to the prompt, and to the original image by both encoders."""
    clip = observers.clip.encode_images(images)
    columns: dict[str, Any] = {"clip_t": (clip * texts).sum(1).tolist()}
    if original is None:
        return columns | {"clip_i": [None] * len(images), "dino": [None] * len(images)}
    others = _pictures(original, observers.device)
    columns["clip_i"] = (clip * observers.clip.encode_images(others)).sum(1).tolist()
    columns["dino"] = (dino * observers.dino.encode_images(others)).sum(1).tolist()
    return columns


def _readable(images: Tensor, concepts: Sequence[str], observers: Observers) -> list[bool | None]:
    """Whether the concept reader sees the prompt's concept; null without one."""
    if observers.concepts is None:
        return [None] * len(images)
    return [seen == wanted for seen, wanted in zip(observers.concepts.recognise(images), concepts, strict=True)]
