"""Latent diffusion: load a model, condition it on text, sample from it, adapt it."""
