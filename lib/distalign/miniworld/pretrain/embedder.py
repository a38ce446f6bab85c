"""The mini world's face-recognition network: an SFNet trained to tell rendered identities apart."""

import torch
import torch.nn.functional as F
from torch import nn

from distalign.faces.crop import align_faces
from distalign.faces.dataset import FaceSet
from distalign.faces.embedding import SFNet, SFNetConfig, embed
from distalign.miniworld.pretrain.loop import Progress, optimise, warm_cosine

CONFIG = SFNetConfig(depths=(1, 1, 1, 1), widths=(16, 32, 64, 96), input_size=48, embedding=96)
_SCALE, _MARGIN = 24.0, 0.2  # CosFace (Wang et al. 2018)


def train_embedder(faces: FaceSet, steps: int, seed: int, batch: int = 96, rate: float = 1.5e-3) -> SFNet:
    """Train on the identities of a face set."""
    torch.manual_seed(seed)
    names, identity = faces.identity.unique(return_inverse=True)
    network = SFNet(CONFIG)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    classes = nn.Parameter(torch.randn(len(names), CONFIG.embedding) * 0.1)
    optimiser, schedule = optimise([*network.parameters(), classes], rate, warm_cosine(steps, 100), betas=(0.9, 0.999))
    progress = Progress("embedder", steps, 100)
    for step in range(steps):
        index = torch.randint(len(faces), (batch,))
        chips = align_faces(faces.batch(index), faces.landmarks[index], CONFIG.input_size)
        chips = (chips * (1 + 0.1 * torch.randn(batch, 1, 1, 1)) + 0.05 * torch.randn_like(chips)).clamp(-1, 1)
        features = F.normalize(network(chips if torch.rand(()) < 0.5 else chips.flip(-1)), dim=1)
        cosine = features @ F.normalize(classes, dim=1).T
        wanted = F.one_hot(identity[index], len(names))
        loss = F.cross_entropy(_SCALE * (cosine - _MARGIN * wanted), identity[index])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        progress.add(step, loss=loss)
    return network.eval().requires_grad_(False)


@torch.no_grad()
def verification(network: SFNet, faces: FaceSet) -> float:
    """Area under the ROC curve of same against different identity, from the cosine of embeddings."""
    chips = align_faces(faces.batch(torch.arange(len(faces))), faces.landmarks, network.config.input_size)
    features = embed(network, chips)
    cosine = features @ features.T
    same = faces.identity[:, None] == faces.identity[None]
    upper = torch.ones_like(same).triu(1)
    positive, negative = cosine[same & upper], cosine[~same & upper]
    order = torch.cat([positive, negative]).argsort().argsort().double()[: len(positive)]
    n = len(positive)
    return float((order.sum() - n * (n - 1) / 2) / (n * len(negative)))
