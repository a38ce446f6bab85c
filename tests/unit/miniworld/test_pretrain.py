"""Pretraining in miniature: every stage writes what the rest of the pipeline loads, and goes on where it stopped."""

from pathlib import Path

import pytest
import torch

from distalign.classifiers.concepts import load_concept_reader
from distalign.diffusion.pipeline import load_pipeline
from distalign.diffusion.sampler import generate
from distalign.encoders.clip import ClipEncoder
from distalign.encoders.dino import DinoEncoder
from distalign.faces.detector import Detector
from distalign.faces.embedding import load_embedder
from distalign.miniworld.facesets import render_faces
from distalign.miniworld.pictures import load_pictures
from distalign.miniworld.pretrain.denoiser import train_denoiser
from distalign.miniworld.pretrain.early import train_early
from distalign.miniworld.pretrain.stages import STAGES, Recipe
from distalign.miniworld.pretrain.tokenizer import MAX_LENGTH, train_tokenizer
from distalign.store.files import read_json

RECIPE = Recipe(
    pictures=160, autoencoder_steps=3, decoder_steps=2, denoiser_steps=2, clip_pictures=140, clip_steps=2, dino_steps=2,
    embedder_steps=2, concept_pictures=120, concept_steps=2,
)  # fmt: skip
PROMPT = "a photo of the face of an old asian female harbor engineer, a person"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages, run once."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "faces").mkdir()
    render_faces(folder / "faces/loss_faces.parquet", 12, 4, 1, Detector(min_face=24, scale=2), {})
    for make in STAGES.values():
        make(folder / "pretrain", RECIPE)
    return folder / "pretrain"


def test_the_backbone_is_an_ordinary_pipeline(work: Path) -> None:
    """It loads like any other Stable Diffusion directory, and paints."""
    pipeline = load_pipeline(work / "backbone")
    assert pipeline.latent_shape == (16, 8, 8) and pipeline.image_size == 64
    images = generate(pipeline, [PROMPT], [0], steps=3, guidance=3, micro_batch=1)
    assert images.shape == (1, 3, 64, 64) and images.isfinite().all()
    latents = pipeline.vae.encode(load_pictures(work / "pictures").images[:64].float() / 127.5 - 1).latent_dist.mean
    assert (latents * pipeline.vae.config.scaling_factor).std() == pytest.approx(1, abs=0.2)


def test_every_known_word_is_one_token(work: Path) -> None:
    """Known words are tokens; an unknown one falls back to pieces; captions fit."""
    captions = load_pictures(work / "pictures").captions
    tokenizer = train_tokenizer([*captions, PROMPT])
    words = PROMPT.replace(",", " ,").split()
    assert tokenizer.tokenize(PROMPT) == [f"{word}</w>" for word in words]
    assert len(tokenizer.tokenize("zzyzx")) > 1
    assert max(len(ids) for ids in tokenizer(captions)["input_ids"]) <= MAX_LENGTH


def test_encoders_and_readers_load(work: Path) -> None:
    """The observers of the pipeline read what the stages wrote."""
    images = load_pictures(work / "pictures").images[:4].float() / 127.5 - 1
    clip, dino = ClipEncoder(work / "clip"), DinoEncoder(work / "dino")
    assert clip.encode_images(images).shape == (4, 64) and clip.encode_texts([PROMPT]).shape == (1, 64)
    assert dino.encode_images(images).shape == (4, 128)
    assert len(load_concept_reader(work / "concept_reader").recognise(images)) == 4
    assert load_embedder(work / "face_embedding").config.embedding == 96


def test_an_interrupted_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after a save and started again, the denoiser ends with the same weights."""
    monkeypatch.setattr("distalign.miniworld.pretrain.denoiser._SAVE_EVERY", 2)
    tokenizer = train_tokenizer([PROMPT])
    latents = torch.randn(16, 16, 8, 8, generator=torch.Generator().manual_seed(0))

    def train(state: Path) -> torch.Tensor:
        denoiser = train_denoiser(latents, [PROMPT] * 16, tokenizer, steps=3, seed=0, state=state, batch=4)
        return torch.cat([p.flatten() for p in denoiser.modules().parameters()])

    whole = train(tmp_path / "a.state")
    assert (tmp_path / "a.state").exists()  # as it was after two of the three steps
    assert torch.equal(train(tmp_path / "a.state"), whole)


def test_the_early_model_shares_latents_and_words(work: Path, tmp_path: Path) -> None:
    """A few steps from nothing give another U-Net in the same latent space, the same for the same seed."""
    spec = {"pictures": 70, "steps": 2, "seed": 5}
    for name in ("a", "b"):
        train_early(spec, work / "backbone", tmp_path / name)
    early, again, trained = (load_pipeline(path) for path in (tmp_path / "a", tmp_path / "b", work / "backbone"))

    def weights(module: torch.nn.Module) -> torch.Tensor:
        return torch.cat([parameter.flatten() for parameter in module.parameters()])

    assert torch.equal(weights(early.unet), weights(again.unet))
    assert torch.equal(weights(early.vae), weights(trained.vae))
    assert not torch.equal(weights(early.unet), weights(trained.unet))
    assert early.tokenizer.get_vocab() == trained.tokenizer.get_vocab()
    assert early.vae.config["scaling_factor"] == trained.vae.config["scaling_factor"]
    assert read_json(tmp_path / "a/provenance.json")["spec"] == spec
