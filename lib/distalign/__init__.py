"""Finetuning text-to-image diffusion models for fairness (Shen et al., ICLR 2024), reproduced and extended."""
