"""The figures of config.yaml: one model per kind, so that a key without meaning for a kind is an error."""

from typing import Annotated, Literal

from pydantic import Field

from distalign.config.models.base import Count, Model, Name

Names = Annotated[list[Name], Field(min_length=1)]


class FigureSpec(Model):
    """A figure, drawn as pdf, svg and png, with the numbers it shows as parquet."""

    title: str = Field(description="Caption.")


class RunFigure(FigureSpec):
    """A figure of some runs."""

    runs: Names = Field(description="Runs shown, in order; the others are compared with the first.")
    labels: dict[Name, str] = Field(
        default_factory=dict, description="What runs are called; the others as in the first table that has them."
    )


class TrainingCurves(RunFigure):
    """Losses and bias during finetuning, with the measurements on validation prompts, of all seeds."""

    kind: Literal["training_curves"] = Field(description="This kind.")


class ImageFigure(RunFigure):
    """A figure of the images of one evaluation."""

    evaluation: Name = Field(description="Where the images come from.")
    attributes: list[str] = Field(
        default_factory=list, description="Attributes shown; empty: those that any of the runs aligns."
    )
    prompts: Count | None = Field(None, description="Show the first so many prompts; unset: all.")


class Frequencies(ImageFigure):
    """Bars per prompt, one panel per class, the runs side by side, averaged over seeds (the paper's figure 4)."""

    kind: Literal["frequencies"] = Field(description="This kind.")


class ContactSheet(ImageFigure):
    """Images of the same noise side by side, with boxes and predicted attributes (the paper's figure 3).

    Of each run the first seed.
    """

    kind: Literal["contact_sheet"] = Field(description="This kind.")
    images: Count | None = Field(None, description="Images per prompt and run; unset: 8.")


class Tradeoff(FigureSpec):
    """One point per row of some tables: bias against what else changed in the images."""

    kind: Literal["tradeoff"] = Field(description="This kind.")
    tables: Names = Field(description="Tables whose rows are shown; rows that say the same are shown once.")
    bias: list[str] = Field(min_length=1, description="Horizontal axes, one panel each: bias/A or distance/A.")
    preservation: str = Field("clip_i", description="Vertical axis: clip_i, dino, clip_t or another metric.")


class GuidanceSweep(RunFigure):
    """Metrics over the classifier-free guidance scale of some evaluations, one line per run."""

    kind: Literal["guidance_sweep"] = Field(description="This kind.")
    evaluations: list[Name] = Field(min_length=2, description="Evaluations, each with a guidance of its own.")
    metrics: list[str] = Field(
        default_factory=list,
        description="Vertical axes, one panel each; empty: the bias of every attribute that any of the runs aligns.",
    )


Figure = Annotated[TrainingCurves | Frequencies | ContactSheet | Tradeoff | GuidanceSweep, Field(discriminator="kind")]
