"""From final latents to dL/dz0: decode, find faces, choose targets, and differentiate the losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distalign.alignment.distributed import Group
from distalign.alignment.losses import (
    alignment_loss,
    disagreement_factors,
    face_loss,
    intersect_boxes,
    mean_alignment_loss,
    scale_gradient_in_boxes,
    similarity_loss,
)
from distalign.alignment.originals import OriginalBatch
from distalign.alignment.plan import Iteration
from distalign.alignment.reading import FaceReader, class_probabilities
from distalign.alignment.targets import alignment_targets, mean_slopes
from distalign.config.attributes import ATTRIBUTES
from distalign.diffusion.batch_sizes import given
from distalign.diffusion.pipeline import Pipeline
from distalign.diffusion.sampler import decode
from distalign.faces.bank import FaceBank
from distalign.faces.crop import expand_square
from distalign.faces.detector import FaceBatch
from distalign.store.seeds import stable_seed

LOSSES = ("loss/align", "loss/image", "loss/face", "loss/preserve")
TRANSPORT_DRAWS = 500  # where count vectors are too many to enumerate; the released code draws 100 per GPU


@dataclass(frozen=True)
class Guide:
    """What pulls B images, decided without gradient.

    Attributes:
        faces: of the images.
        targets: (B,) class of each attribute, or -1.
        slopes: (B, K) of each attribute, where the mean over the batch is aligned (`targets.mean_slopes`); else empty.
        whole: (B,) factor on the image loss.
        region: (B,) further factor on its gradient inside `boxes`.
        boxes: (B, 4), where the expanded faces of image and original overlap.
        realism: (B,) bool, whether the face loss applies: there is a face, and a target for it.
        references: (B, E), the real faces it pulls to; zeros elsewhere.
    """

    faces: FaceBatch
    targets: dict[str, Tensor]
    slopes: dict[str, Tensor]
    whole: Tensor
    region: Tensor
    boxes: Tensor
    realism: Tensor
    references: Tensor


@dataclass(frozen=True)
class Pull:
    """What an iteration's images give: see `Objective.pull`.

    Attributes:
        cotangent: dL/dz0 (B, C, h, w) of this process's images.
        losses: sums over all images, of all processes.
        read: class probabilities (N, K) of all faces, and whether each image has one: "found" (N,).
        guide: of this process's images.
    """

    cotangent: Tensor
    losses: dict[str, float]
    read: dict[str, np.ndarray]
    guide: Guide


class Objective:
    """The loss of an iteration's images, as its gradient with respect to their latents.

    Per-image losses are summed over this process's images, not averaged: whoever uses the gradient divides by the
    global N once all processes' gradients are added, so that the number of processes and of micro-batches changes
    nothing, and gradients stay N times further from the underflow of half precision.
    """

    def __init__(
        self, spec: Mapping[str, Any], pipeline: Pipeline, reader: FaceReader, bank: FaceBank, group: Group
    ) -> None:
        self.shares: dict[str, Sequence[float]] = {
            attribute: [target.get(name, 0.0) for name in ATTRIBUTES[attribute]]
            for attribute, target in spec["align"].items()
        }
        self.loss = spec["loss"]
        self.confidence = spec["confidence"]
        self.seed = spec["seed"]
        self.fixed = spec.get("targets") == "fixed"
        self.mean = spec.get("targets") == "batch_mean"
        self.micro_batch = given(spec["micro_batch"])
        self.pipeline, self.reader, self.bank, self.group = pipeline, reader, bank, group

    def pull(
        self, z0: Tensor, originals: OriginalBatch, iteration: Iteration, k: int, keep_graph: bool, scale: float = 1.0
    ) -> Pull:
        """Look at the images of latents (B, C, h, w), decide what pulls them, and differentiate the losses.

        With `keep_graph` images are decoded once, all together in memory; else twice, the second time in micro-batches.
        `scale` multiplies the cotangent, not the losses (`half.py`).
        """
        leaves = self._leaves(z0)
        decoded: list[Tensor] = []
        if keep_graph:
            decoded = [decode(self.pipeline, leaf, len(leaf)) for leaf in leaves]
            images = torch.cat([image.detach() for image in decoded])
        else:
            with torch.no_grad():
                images = decode(self.pipeline, z0, self.micro_batch["decode"])
        guide, read = self._guide(images, originals, iteration, k)
        cotangent, sums = self._differentiate(leaves, decoded, guide, originals, scale)
        self.group.sum([sums])
        named = dict(zip(LOSSES, sums.tolist(), strict=True))
        if "preserve" not in self.loss:
            del named["loss/preserve"]
        return Pull(cotangent, named, read, guide)

    def pull_again(self, z0: Tensor, guide: Guide, originals: OriginalBatch, scale: float = 1.0) -> Tensor:
        """dL/dz0 (B, C, h, w) at other latents of the same images, which show nearly what the guide was decided on."""
        cotangent, _ = self._differentiate(self._leaves(z0), [], guide, originals, scale)
        return cotangent

    def _leaves(self, z0: Tensor) -> list[Tensor]:
        """Micro-batches of latents, each to collect its gradient."""
        return [part.clone().requires_grad_() for part in z0.detach().split(self.micro_batch["loss"])]

    def _differentiate(
        self, leaves: list[Tensor], decoded: list[Tensor], guide: Guide, originals: OriginalBatch, scale: float
    ) -> tuple[Tensor, Tensor]:
        """(scale dL/dz0, sums of LOSSES) over micro-batches, whose images are `decoded`, with graphs, or not yet."""
        sums = torch.zeros(len(LOSSES), dtype=torch.float64, device=leaves[0].device)
        for i, leaf in enumerate(leaves):
            rows = slice(i * self.micro_batch["loss"], i * self.micro_batch["loss"] + len(leaf))
            image = decoded.pop(0) if decoded else decode(self.pipeline, leaf, len(leaf))
            losses = self._losses(image, guide, originals, rows)
            (scale * torch.stack(losses).sum()).backward()
            sums += torch.stack(losses).detach().double()
        return torch.cat([leaf.grad for leaf in leaves if leaf.grad is not None]), sums

    @torch.no_grad()
    def _guide(
        self, images: Tensor, originals: OriginalBatch, iteration: Iteration, k: int
    ) -> tuple[Guide, dict[str, np.ndarray]]:
        chunks = [self.reader.detect(chunk) for chunk in images.split(self.micro_batch["sample"])]
        faces = FaceBatch(*(torch.cat(parts) for parts in zip(*(vars(c).values() for c in chunks), strict=True)))
        read = class_probabilities(self.reader.classifier, images, faces)
        everyone = {attribute: self.group.gather(values.cpu().numpy()) for attribute, values in read.items()}
        everyone["found"] = self.group.gather(faces.found.cpu().numpy())
        targets = self._targets(everyone, iteration, k, images.device)
        slopes = self._slopes(everyone, iteration, images) if self.mean else {}
        return self._with_weights(images, faces, targets, slopes, originals), everyone

    def _targets(
        self, everyone: Mapping[str, np.ndarray], iteration: Iteration, k: int, device: torch.device
    ) -> dict[str, Tensor]:
        """Targets of this process's images; the transport is over all images of a prompt, in all processes."""
        index = np.array(iteration.prompt_index)
        targets = {attribute: np.full(len(index), -1) for attribute in self.shares}
        for prompt in () if self.mean else range(len(iteration.prompts)):
            rows = index == prompt
            chosen = alignment_targets(
                {attribute: everyone[attribute][rows] for attribute in self.shares},
                self.shares,
                everyone["found"][rows],
                self.confidence,
                TRANSPORT_DRAWS,
                stable_seed(self.seed, "transport", k, prompt),
                self.fixed,
            )
            for attribute, values in chosen.items():
                targets[attribute][rows] = values
        part = self.group.share(len(index))
        return {attribute: torch.from_numpy(values[part]).to(device) for attribute, values in targets.items()}

    def _slopes(self, everyone: Mapping[str, np.ndarray], iteration: Iteration, images: Tensor) -> dict[str, Tensor]:
        """Slopes of this process's images; the mean is over all images of a prompt, in all processes."""
        index = np.array(iteration.prompt_index)
        slopes = {attribute: np.zeros(everyone[attribute].shape) for attribute in self.shares}
        for prompt in range(len(iteration.prompts)):
            rows = index == prompt
            own = {attribute: everyone[attribute][rows] for attribute in self.shares}
            for attribute, values in mean_slopes(own, self.shares, everyone["found"][rows]).items():
                slopes[attribute][rows] = values
        part = self.group.share(len(index))
        return {attribute: torch.from_numpy(values[part]).to(images) for attribute, values in slopes.items()}

    def _with_weights(
        self,
        images: Tensor,
        faces: FaceBatch,
        targets: dict[str, Tensor],
        slopes: dict[str, Tensor],
        originals: OriginalBatch,
    ) -> Guide:
        compared = {} if slopes else targets  # without targets no image disagrees with its original
        whole = disagreement_factors(compared, originals.classes, faces.found, self.loss["agree"])
        whole = torch.where(originals.found & ~faces.found, whole * self.loss.get("lost_face", 1.0), whole)
        region = disagreement_factors(compared, originals.classes, faces.found, self.loss["face_region"])
        expand = self.reader.classifier.expand
        boxes = intersect_boxes(expand_square(faces.boxes, expand), expand_square(originals.boxes, expand))
        boxes = torch.where((faces.found & originals.found)[:, None], boxes, 0)
        realism = faces.found & torch.stack([target >= 0 for target in targets.values()]).any(0)
        references = torch.zeros_like(originals.face)
        if self.loss["face"] and realism.any():
            embeddings = self.reader.embed(images[realism], faces.landmarks[realism])
            wanted = {attribute: target[realism] for attribute, target in targets.items()}
            own = originals.found
            for attribute, target in targets.items():
                sure = originals.confidence[attribute] >= self.loss["face_confidence"]
                own = own & (target == originals.classes[attribute]) & sure
            nearest = self.bank.nearest(embeddings, wanted)
            references[realism] = torch.where(own[realism][:, None], originals.face[realism], nearest)
        return Guide(faces, targets, slopes, whole, region, boxes, realism, references)

    def _losses(self, images: Tensor, guide: Guide, originals: OriginalBatch, rows: slice) -> list[Tensor]:
        """Weighted sums of LOSSES over images (b, 3, H, W), the rows `rows` of the guide."""
        align = image = face = preserve = images.sum() * 0  # part of the graph even where no loss applies
        found = guide.faces.found[rows]
        if found.any():
            chips = self.reader.classifier.chips(images[found], guide.faces.boxes[rows][found])
            logits = self.reader.classifier(chips)
            targets = {attribute: target[rows][found] for attribute, target in guide.targets.items()}
            slopes = {attribute: slope[rows][found] for attribute, slope in guide.slopes.items()}
            align = (mean_alignment_loss(logits, slopes) if slopes else alignment_loss(logits, targets)).sum()
            others = {name: own[rows][found] for name, own in originals.classes.items() if name not in self.shares}
            if others and self.loss.get("preserve"):
                preserve = self.loss["preserve"] * alignment_loss(logits, others).sum()
        if self.loss["image"]:
            masked = scale_gradient_in_boxes(images, guide.boxes[rows], guide.region[rows])
            features = {name: encoder.encode_images(masked) for name, encoder in self.reader.encoders.items()}
            goal = {name: values[rows] for name, values in originals.features.items()}
            image = self.loss["image"] * (guide.whole[rows] * similarity_loss(features, goal)).sum()
        realism = guide.realism[rows]
        if self.loss["face"] and realism.any():
            embeddings = self.reader.embed(images[realism], guide.faces.landmarks[rows][realism])
            face = self.loss["face"] * face_loss(embeddings, guide.references[rows][realism]).sum()
        return [align, image, face, preserve]
