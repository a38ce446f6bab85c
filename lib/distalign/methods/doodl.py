"""DOODL (Wallace et al. 2023): each image's starting latents are optimised through the whole sampling."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distalign.alignment.gradient import latent_gradient
from distalign.config.attributes import ATTRIBUTES
from distalign.diffusion.intervention import Intervention, Sampling
from distalign.diffusion.sampler import decode, sample
from distalign.methods.assignment import Target, assign, cells
from distalign.methods.world import World


class Doodl(Intervention):
    """Gradient descent on z_T, image by image, towards the class drawn for each."""

    def __init__(self, world: World, target: Target, settings: Mapping[str, Any]) -> None:
        self.world, self.target, self.settings = world, target, settings

    def latents(self, sampling: Sampling, noise: Tensor) -> Tensor:
        """z_T (B, C, h, w) after all updates of v <- mu v - eta sqrt(d) g / |g|, z_T <- z_T + v, with the norm kept.

        g = dL/dz_T of the image, d its number of elements; L is the cross-entropy of its face to its class, summed over
        attributes. An image without a face is not updated.
        """
        kinds = cells(self.target)
        chosen = [kinds[cell] for cell in assign(self.target, sampling.batch, self.settings["assignment"])]
        classes = {
            attribute: torch.tensor([ATTRIBUTES[attribute].index(cell[attribute]) for cell in chosen]).to(noise.device)
            for attribute in kinds[0]
        }
        z, velocity = noise, torch.zeros_like(noise)
        for _ in range(self.settings["steps"]):
            gradient = self._gradient(sampling, z, classes)
            norm = _norm(gradient)
            pulled = (norm > 0) & norm.isfinite()
            step = self.settings["momentum"] * velocity - self.settings["learning_rate"] * _unit(gradient)
            velocity = torch.where(pulled, step, velocity)
            moved = z + velocity
            if self.settings["renormalise"]:
                moved = moved * (_norm(noise) / _norm(moved))
            z = torch.where(pulled, moved, z)
        return z

    def _gradient(self, sampling: Sampling, z: Tensor, classes: Mapping[str, Tensor]) -> Tensor:
        """dL/dz_T (B, C, h, w) of each image up to a positive factor; zero without a face."""
        size, pipeline = self.world.gradient_batch, sampling.pipeline
        how = (sampling.conditioning, sampling.prompt_index)
        rollout = sample(pipeline, z, *how, sampling.steps, sampling.guidance, len(z), keep=True)
        parts = []
        for image in torch.arange(len(z), device=z.device).split(size):
            own = {attribute: values[image] for attribute, values in classes.items()}
            parts.append(self._cotangent(sampling, rollout.z0[image], own))
        # Only directions matter, so a length of the cotangent that no half-precision network loses is best.
        return latent_gradient(pipeline, rollout, _unit(torch.cat(parts)), *how, sampling.guidance, size)

    def _cotangent(self, sampling: Sampling, z0: Tensor, classes: Mapping[str, Tensor]) -> Tensor:
        """dL/dz0 (b, C, h, w) of each image; zero without a face."""
        reader = self.world.reader
        with torch.enable_grad():
            leaf = z0.detach().requires_grad_()
            images = decode(sampling.pipeline, leaf, len(leaf))
            faces = reader.detect(images.detach())
            if not faces.found.any():
                return torch.zeros_like(z0)
            logits = reader.classifier(reader.classifier.chips(images[faces.found], faces.boxes[faces.found]))
            losses = [F.cross_entropy(logits[a], own[faces.found], reduction="sum") for a, own in classes.items()]
            (gradient,) = torch.autograd.grad(torch.stack(losses).sum(), leaf)
        return gradient


def _norm(values: Tensor) -> Tensor:
    """(B, 1, 1, 1), of each image by itself."""
    return torch.linalg.vector_norm(values, dim=(1, 2, 3), keepdim=True)


def _unit(values: Tensor) -> Tensor:
    """Each image's (B, C, h, w) scaled to a root mean square of 1; zeros stay."""
    norm = _norm(values)
    return torch.where(norm > 0, values * (values[0].numel() ** 0.5 / norm), 0)


def apply(world: World, settings: Mapping[str, Any], target: Target, fitted: Mapping[str, Tensor]) -> Intervention:
    """The intervention; nothing is fitted."""
    return Doodl(world, target, settings)
