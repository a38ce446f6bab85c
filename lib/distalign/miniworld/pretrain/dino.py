"""A small DINOv2 of the mini world, trained by self-distillation without labels."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from distalign.encoders.dino import IMAGENET_MEAN, IMAGENET_STD
from distalign.miniworld.pretrain.loop import Progress, optimise, to_signed, warm_cosine

_PROTOTYPES = 512
_STUDENT_TEMPERATURE, _TEACHER_TEMPERATURE = 0.1, 0.05
_SPREAD = 0.1  # weight of the KoLeo term (DINOv2), which spreads features


def build_dino() -> Dinov2Model:
    """A vision transformer on 8-pixel patches of 64-pixel pictures."""
    return Dinov2Model(
        Dinov2Config(image_size=64, patch_size=8, hidden_size=128, num_hidden_layers=4, num_attention_heads=4)
    )


class _Head(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, 256), nn.GELU(), nn.Linear(256, 64))
        self.prototypes = nn.Linear(64, _PROTOTYPES, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        weight = F.normalize(self.prototypes.weight, dim=1)
        return F.linear(F.normalize(self.body(features), dim=1), weight)


def _view(images: Tensor, smallest: float) -> Tensor:
    """A random crop per batch, resized back, with random colours and mirroring."""
    n, _, height, _ = images.shape
    scale = smallest + (1 - smallest) * torch.rand(n)
    shift = (torch.rand(n, 2) * 2 - 1) * (1 - scale)[:, None]
    flip = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale * flip, scale, shift
    grid = F.affine_grid(theta, [n, 3, height, height], align_corners=False)
    x = F.grid_sample(images, grid, align_corners=False, padding_mode="reflection")
    gain = 1 + 0.15 * torch.randn(n, 3, 1, 1)
    x = (x * gain + 0.10 * torch.randn(n, 1, 1, 1)).clamp(-1, 1)
    grey = (torch.rand(n, 1, 1, 1) < 0.1).float()
    return x * (1 - grey) + x.mean(1, keepdim=True) * grey + 0.03 * torch.randn_like(x)


def train_dino(images: Tensor, steps: int, seed: int, batch: int = 32, rate: float = 5e-4) -> Dinov2Model:
    """Self-distillation (Caron et al. 2021; Oquab et al. 2023) on uint8 pictures; returns the teacher's encoder."""
    torch.manual_seed(seed)
    encoder = build_dino()
    student = nn.ModuleList([encoder, _Head(encoder.config.hidden_size)])
    teacher = copy.deepcopy(student).requires_grad_(False)
    centre = torch.zeros(_PROTOTYPES)
    optimiser, schedule = optimise(student.parameters(), rate, warm_cosine(steps, 150), betas=(0.9, 0.999))
    progress = Progress("dino", steps, 100)
    for step in range(steps):
        x = to_signed(images[torch.randint(len(images), (batch,))])
        wide = torch.cat([_view(x, 0.6), _view(x, 0.6)])
        narrow = _view(x, 0.35)
        with torch.no_grad():
            raw = _project(teacher, wide)[1]
            target = ((raw - centre) / _TEACHER_TEMPERATURE).softmax(1)
            centre = 0.9 * centre + 0.1 * raw.mean(0)
        features, logits = _project(student, torch.cat([wide, narrow]))
        loss = _distil(logits, target, batch)
        spread = _spread(features[:batch])
        optimiser.zero_grad()
        (loss + _SPREAD * spread).backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        momentum = 1 - (1 - 0.992) * (0.5 + 0.5 * torch.cos(torch.tensor(torch.pi * step / steps))).item()
        with torch.no_grad():
            torch._foreach_lerp_(list(teacher.parameters()), [p.detach() for p in student.parameters()], 1 - momentum)
        entropy = -(target.mean(0) * target.mean(0).clamp_min(1e-9).log()).sum()
        progress.add(step, loss=loss, spread=spread, entropy=entropy)
    trained = teacher[0]
    assert isinstance(trained, Dinov2Model)
    return trained.eval()


def _project(network: nn.ModuleList, images: Tensor) -> tuple[Tensor, Tensor]:
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    features = network[0](((images + 1) / 2 - mean) / deviation).last_hidden_state[:, 0]
    return features, network[1](features)


def _distil(logits: Tensor, target: Tensor, batch: int) -> Tensor:
    """Cross-entropy of every student view with the teacher's other views."""
    students = (logits / _STUDENT_TEMPERATURE).log_softmax(1).split(batch)
    teachers = target.split(batch)
    pairs = [(t, s) for i, t in enumerate(teachers) for j, s in enumerate(students) if i != j]
    return torch.stack([-(t * s).sum(1).mean() for t, s in pairs]).mean()


def _spread(features: Tensor) -> Tensor:
    """KoLeo: minus the log distance to the nearest neighbour in the batch."""
    unit = F.normalize(features, dim=1)
    cosine = (unit @ unit.T).fill_diagonal_(-1).amax(1)
    return -((2 - 2 * cosine).clamp_min(1e-6).sqrt()).log().mean()
