"""Finetuning text-to-image diffusion models for fairness (Shen et al., ICLR 2024), reproduced and extended."""

from importlib.metadata import version

__version__ = version("distalign")
