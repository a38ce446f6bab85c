"""The stages of pretraining, each a function from one folder of results to the next.

results/{preset}/pretrain/pictures        captioned pictures
                         /tokenizer /autoencoder /backbone
                         /clip /dino /face_embedding /concept_reader
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from distalign.classifiers.concepts import save_concept_reader
from distalign.encoders.clip import save_clip
from distalign.faces.dataset import load_faces
from distalign.faces.embedding import save_embedder
from distalign.miniworld.pictures import draw_pictures, load_pictures, save_pictures
from distalign.miniworld.pretrain.autoencoder import encode, refine_decoder, train_autoencoder
from distalign.miniworld.pretrain.clip import PREPROCESS, clip_config, train_clip
from distalign.miniworld.pretrain.concept_reader import draw_parts, part_accuracy, train_concept_reader
from distalign.miniworld.pretrain.denoiser import assemble, train_denoiser
from distalign.miniworld.pretrain.dino import train_dino
from distalign.miniworld.pretrain.embedder import train_embedder, verification
from distalign.miniworld.pretrain.tokenizer import train_tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Sizes of the trainings; the defaults are those of the shipped weights."""

    seed: int = 0
    pictures: int = 40_000
    autoencoder_steps: int = 3_050
    decoder_steps: int = 2_300
    denoiser_steps: int = 6_000
    clip_pictures: int = 16_000
    clip_steps: int = 400
    dino_steps: int = 350
    embedder_steps: int = 800
    concept_pictures: int = 9_000
    concept_steps: int = 1_200


def make_pictures(work: Path, recipe: Recipe) -> None:
    """Captioned pictures, and the tokenizer of their words."""
    pictures = draw_pictures(recipe.pictures, recipe.seed + 1)
    save_pictures(pictures, work / "pictures")
    train_tokenizer(pictures.captions).save_pretrained(work / "tokenizer")


def make_autoencoder(work: Path, recipe: Recipe) -> None:
    """Train the autoencoder on the pictures, then its decoder alone."""
    images = load_pictures(work / "pictures").images
    vae = train_autoencoder(images, recipe.autoencoder_steps, recipe.seed)
    refine_decoder(vae, images, encode(vae, images), recipe.decoder_steps, recipe.seed)
    vae.save_pretrained(work / "autoencoder")


def make_backbone(work: Path, recipe: Recipe) -> None:
    """Train text encoder and U-Net on latents of the pictures and their mirror images; write the pipeline."""
    pictures = load_pictures(work / "pictures")
    tokenizer, loader = _tokenizer(work), cast(Any, AutoencoderKL)
    vae = loader.from_pretrained(work / "autoencoder").eval()
    latents = torch.cat([encode(vae, pictures.images), encode(vae, pictures.images.flip(3))])
    latents = latents * vae.config.scaling_factor
    denoiser = train_denoiser(
        latents, pictures.captions * 2, tokenizer, recipe.denoiser_steps, recipe.seed, work / "denoiser.state"
    )
    assemble(vae, denoiser, tokenizer).save_pretrained(work / "backbone")


def make_clip(work: Path, recipe: Recipe) -> None:
    """Train CLIP on pictures and captions of its own, without the skew: what measures may not prefer the typical."""
    pictures, tokenizer = draw_pictures(recipe.clip_pictures, recipe.seed + 31, skewed=False), _tokenizer(work)
    model = train_clip(pictures.images, pictures.captions, tokenizer, recipe.clip_steps, recipe.seed)
    save_clip(work / "clip", model, clip_config(tokenizer), PREPROCESS, tokenizer)


def make_dino(work: Path, recipe: Recipe) -> None:
    """Train DINOv2 on pictures alone."""
    train_dino(load_pictures(work / "pictures").images, recipe.dino_steps, recipe.seed).save_pretrained(work / "dino")


def make_face_embedding(work: Path, recipe: Recipe) -> None:
    """Train the face-recognition network on the identities of the loss classifier's faces."""
    path = work / "../faces/loss_faces.parquet"
    network = train_embedder(load_faces(path, "train"), recipe.embedder_steps, recipe.seed)
    log.info("face embedding: area under the ROC curve %.4f", verification(network, load_faces(path, "validation")))
    save_embedder(work / "face_embedding", network)


def make_concept_reader(work: Path, recipe: Recipe) -> None:
    """Train the reader of looks."""
    images, parts = draw_parts(recipe.concept_pictures, recipe.seed + 21)
    held_out = len(images) // 10
    reader = train_concept_reader(images[held_out:], parts[held_out:], recipe.concept_steps, recipe.seed)
    accuracy = part_accuracy(reader, images[:held_out], parts[:held_out])
    log.info("concept reader: accuracy by part %s", [round(a, 4) for a in accuracy])
    save_concept_reader(work / "concept_reader", reader)


def _tokenizer(work: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(work / "tokenizer")


STAGES: dict[str, Callable[[Path, Recipe], None]] = {
    "pictures": make_pictures,
    "autoencoder": make_autoencoder,
    "backbone": make_backbone,
    "clip": make_clip,
    "dino": make_dino,
    "face_embedding": make_face_embedding,
    "concept_reader": make_concept_reader,
}
