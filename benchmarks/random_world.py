"""All that a finetuning of Stable Diffusion 1.5 reads, with random weights: nothing of it is downloaded.

The networks have the structure of those that `presets/sd15.yaml` names, at full width or, `reduced`, narrow and
shallow.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, Dinov2Config, Dinov2Model

from distalign.alignment.originals import write_originals
from distalign.alignment.plan import TrainingPlan
from distalign.alignment.reading import FaceReader
from distalign.alignment.trainer import FinetunePaths, Judges, load_judges
from distalign.classifiers.models import build_classifier, save_classifier
from distalign.diffusion.pipeline import load_generator
from distalign.encoders.clip import save_clip
from distalign.faces.bank import FaceBank, save_bank
from distalign.faces.detector import FaceBatch
from distalign.faces.embedding import SFNet, SFNetConfig, save_embedder
from distalign.miniworld.pretrain.tokenizer import train_tokenizer
from distalign.prompts import load_split

PROMPT = "a photo of the face of a doctor, a person"
TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
IMAGENET = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
POINTS = [[0.42, 0.42], [0.58, 0.42], [0.5, 0.52], [0.44, 0.6], [0.56, 0.6]]
FACES = 80_000  # of the bank, about as many as FairFace has


@dataclass(frozen=True)
class Structure:
    """Settings of the networks; what is not here is the same at every width."""

    text: dict[str, Any]
    unet: dict[str, Any]
    vae: dict[str, Any]
    clip: dict[str, Any]
    dino: dict[str, Any]
    dino_side: int
    face: SFNetConfig
    faces: int


def full() -> Structure:
    """Stable Diffusion 1.5, CLIP ViT-H/14, DINOv2 ViT-B/14, SFNet-20."""
    return Structure(
        text={"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        unet={"sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768},
        vae={"block_out_channels": (128, 256, 512, 512), "sample_size": 512},
        clip=open_clip.get_model_config("ViT-H-14"),
        dino={"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 518},
        dino_side=224,
        face=SFNetConfig(),
        faces=FACES,
    )


def reduced() -> Structure:
    """The same blocks and layers of each kind, for a few seconds of a CPU."""
    tower = {"width": 32, "layers": 1}
    return Structure(
        text={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
        unet={
            "sample_size": 8, "block_out_channels": (8, 16, 32, 32), "cross_attention_dim": 32, "norm_num_groups": 4,
        },
        vae={"block_out_channels": (4, 8, 8, 8), "sample_size": 64, "norm_num_groups": 4},
        clip={
            "embed_dim": 24,
            "vision_cfg": {"image_size": 28, "patch_size": 14, "head_width": 16, **tower},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "heads": 2, **tower},
        },
        dino={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28},
        dino_side=28,
        face=SFNetConfig(widths=(4, 6, 8, 10), embedding=12),
        faces=40,
    )  # fmt: skip


def save_pipeline(path: Path, structure: Structure, device: torch.device, dtype: torch.dtype) -> None:
    """Write a diffusers directory with the blocks of Stable Diffusion 1.5."""
    tokenizer = train_tokenizer([PROMPT])
    end = tokenizer.eos_token_id
    text = CLIPTextConfig(
        vocab_size=49408, max_position_embeddings=77, hidden_act="quick_gelu", bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end, pad_token_id=end, **structure.text,
    )  # fmt: skip
    with device:
        unet = UNet2DConditionModel(layers_per_block=2, attention_head_dim=8, **structure.unet)
        vae = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, layers_per_block=2,
            latent_channels=4, **structure.vae,
        )  # fmt: skip
        encoder = CLIPTextModel(text)
    StableDiffusionPipeline(
        vae=vae.to(dtype),
        text_encoder=encoder.to(dtype),
        tokenizer=tokenizer,
        unet=unet.to(dtype),
        scheduler=DPMSolverMultistepScheduler(**TABLE, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(path)


def save_judges(paths: FinetunePaths, structure: Structure, spec: Mapping[str, Any], device: torch.device) -> None:
    """Write all that looks at images, and the bank of faces."""
    with device:
        clip, dino = open_clip.CLIP(**structure.clip), Dinov2Model(Dinov2Config(patch_size=14, **structure.dino))
    save_clip(paths.clip, clip, structure.clip, IMAGENET)
    dino.save_pretrained(paths.dino)
    side = {"height": structure.dino_side, "width": structure.dino_side}
    (paths.dino / "preprocessor_config.json").write_text(json.dumps({"crop_size": side}))
    chip = spec["plan"]["chip"]
    classifier = build_classifier("mobilenet_v3_large", spec["align"], chip["size"], chip["expand"])
    save_classifier(paths.classifier, classifier)
    save_embedder(paths.face_embedding, SFNet(structure.face))
    embeddings = F.normalize(torch.randn(structure.faces, structure.face.embedding), dim=1)
    save_bank(paths.bank, FaceBank(embeddings, {"gender": torch.arange(structure.faces) % 2}))


def build(folder: Path, structure: Structure, spec: Mapping[str, Any], device: torch.device) -> FinetunePaths:
    """Write everything but the originals below a folder."""
    torch.manual_seed(0)
    paths = FinetunePaths(
        prompts=(folder / "prompts.json",),
        backbone=folder / "backbone",
        classifier=folder / "classifier",
        clip=folder / "clip",
        dino=folder / "dino",
        face_embedding=folder / "face_embedding",
        evaluation_classifier=folder / "classifier",
        bank=folder / "bank.safetensors",
        originals=folder / "originals.parquet",
        run=folder / "run",
    )
    splits = {"train": ["doctor"], "validation": ["judge"], "test": ["cook"]}
    paths.prompts[0].write_text(
        json.dumps({"template": "a photo of the face of {a} {concept}, a person", "splits": splits})
    )
    save_pipeline(paths.backbone, structure, device, getattr(torch, spec["plan"]["precision"]))
    save_judges(paths, structure, spec, device)
    return paths


def judges_of(spec: Mapping[str, Any], paths: FinetunePaths, device: torch.device) -> Judges:
    """The judges of a finetuning; the detector works as ever, and then there is a face in the middle of each image.

    Images of a random model show none, and without faces half of an iteration's work would be left out.
    """
    loaded = load_judges(spec, paths, device)
    search = loaded.reader.detect

    def detect(images: torch.Tensor) -> FaceBatch:
        search(images)
        count, side = len(images), images.shape[-1]
        box = torch.tensor([0.3, 0.25, 0.7, 0.75], device=images.device) * side
        points = torch.tensor(POINTS, device=images.device) * side
        found = torch.ones(count, dtype=torch.bool, device=images.device)
        return FaceBatch(found, box.repeat(count, 1), points.repeat(count, 1, 1), found.float())

    reader = FaceReader(detect, loaded.reader.classifier, loaded.reader.embed, loaded.reader.encoders)
    return Judges(reader, loaded.evaluation, loaded.bank)


def save_originals(spec: Mapping[str, Any], paths: FinetunePaths, judges: Judges, device: torch.device) -> TrainingPlan:
    """Render the frozen model's images of a finetuning's plan, as a rule of the workflow does once for all runs."""
    plan = TrainingPlan.from_spec(spec["plan"], load_split(paths.prompts, "train"))
    pipeline = load_generator(paths.backbone, spec["plan"], device)
    write_originals(spec["plan"], plan, pipeline, judges.reader, paths.originals, {})
    return plan
