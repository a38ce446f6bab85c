"""The mini world's model early in its training: what gradients are like before a model is good."""

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distalign.diffusion.pipeline import load_pipeline
from distalign.miniworld.pictures import draw_pictures
from distalign.miniworld.pretrain.autoencoder import encode
from distalign.miniworld.pretrain.denoiser import assemble, train_denoiser
from distalign.store.files import atomic_directory
from distalign.store.provenance import collect, write_provenance

log = logging.getLogger(__name__)


def train_early(spec: Mapping[str, Any], backbone: Path, output: Path) -> None:
    """Train text encoder and U-Net from nothing for a few steps, by the recipe of the shipped ones.

    Autoencoder and tokenizer are those of the trained model, so that both share one latent space and one language.

    Args:
        spec: What `Study.early_spec` says: `pictures`, `steps`, `seed`.
        backbone: The trained pipeline's directory.
        output: The new pipeline's directory, replaced as a whole; with provenance.json.

    Raises:
        UserError: an unreadable model.
    """
    model = load_pipeline(backbone)
    pictures = draw_pictures(spec["pictures"], spec["seed"] + 1)
    latents = encode(model.vae, pictures.images) * model.vae.config["scaling_factor"]
    log.info("%d pictures painted and encoded", len(pictures))
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "denoiser.state"
        denoiser = train_denoiser(latents, pictures.captions, model.tokenizer, spec["steps"], spec["seed"], state)
    with atomic_directory(output) as target:
        assemble(model.vae, denoiser, model.tokenizer).save_pretrained(target)
        write_provenance(target / "provenance.json", collect("early_backbone", spec, {"backbone": backbone}))
