"""The paper: targets by optimal transport, the losses, adjusted direct finetuning, the training loop."""

from distalign.alignment.launch import launch
from distalign.alignment.originals import compute_originals
from distalign.alignment.reading import WorldPaths
from distalign.alignment.trainer import FinetunePaths, finetune

__all__ = ["FinetunePaths", "WorldPaths", "compute_originals", "finetune", "launch"]
