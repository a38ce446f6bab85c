"""Prompt sets: concepts in splits, put into a template. No torch."""

from distalign.prompts.prompt_set import Prompt, PromptSet, fill, load_prompts, load_split, spread

__all__ = ["Prompt", "PromptSet", "fill", "load_prompts", "load_split", "spread"]
