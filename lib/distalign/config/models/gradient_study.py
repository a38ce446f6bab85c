"""Studies of the gradient estimators (the paper's Figure 1): what is compared, and what a preset spends on it."""

from typing import Literal

from pydantic import Field

from distalign.config.models.base import Count, Model, Positive, Seed


class GradientStudy(Model):
    """A comparison of gradient estimators and its figure, over a grid of guidance, step count and model.

    Made under presets that have a `gradient_study`; their `at_most` shortens it.
    """

    kind: Literal["loss", "magnitude"] = Field(
        description="loss (Figure 1a: a soft prompt learns to make one fixed image) or magnitude (Figure 1b: size of "
        "each sampler step's part of the gradient, for a random gradient R at the final latent)."
    )
    title: str = Field(description="Caption.")
    estimators: list[Literal["exact", "unstandardised", "adjusted", "released"]] = Field(
        ["exact", "unstandardised", "adjusted"], min_length=1, description="What is compared, see `gradient.weights`."
    )
    runs: Count = Field(description="Random repetitions: other noise, other initial soft prompt or other R.")
    guidance: list[Positive] = Field(
        default_factory=list, description="Guidance scales; empty: the one of the preset's finetuning."
    )
    sampler_steps: list[Count] = Field(
        default_factory=list, description="Numbers of sampler steps; empty: the first of the preset's finetuning."
    )
    backbones: list[Literal["shipped", "early"]] = Field(
        ["shipped"],
        min_length=1,
        description="Models: shipped (the preset's own) and early (the same after a short training, where the preset "
        "says how; left out where it does not).",
    )
    noise: Literal["fixed", "fresh"] = Field(
        "fixed", description="For loss: every iteration starts from the run's one noise, or from a new one."
    )
    seed: Seed = Field(0, description="All noises derive from it.")


class EarlyTraining(Model):
    """The mini world's text encoder and U-Net after a short training from nothing, beside the model's own VAE."""

    pictures: Count = Field(description="Pictures it is trained on.")
    steps: Count = Field(description="Training steps of 64 pictures; the shipped model had thousands.")
    seed: Seed = Field(0, description="Of pictures, initialisation and order.")


class Limits(Model):
    """Upper limits on what the studies of config.yaml ask for."""

    runs: Count | None = Field(None, description="Most runs.")
    sampler_steps: Count | None = Field(None, description="Most sampler steps.")


class GradientStudyBudget(Model):
    """What a preset spends on the studies of gradient estimators."""

    iterations: Count = Field(description="For loss: updates of the soft prompt (paper: about 1,000).")
    learning_rate: Positive = Field(description="For loss: of AdamW without weight decay; the same for all estimators.")
    prefix_tokens: Count = Field(5, description="For loss: learned vectors of the soft prompt.")
    early: EarlyTraining | None = Field(None, description="How the early model is trained; unset: there is none.")
    at_most: Limits | None = Field(None, description="Limits on the studies, for tests; unset: none.")
