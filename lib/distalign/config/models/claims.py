"""Claims of the paper as checks on results: resources/claims.yaml."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from distalign.config.models.base import Model, Name, Number, Positive

BOUNDS = ("below", "above", "between")
Selection = dict[str, str | float]  # column of a gradient study -> value


class Bounded(Model):
    """What every check asks of the effect it measures: one of below, above and between."""

    says: str | None = Field(None, description="The check in words; unset: the quantities themselves.")
    below: Number | None = Field(None, description="Holds if the whole 95% interval is below this.")
    above: Number | None = Field(None, description="Holds if the whole 95% interval is above this.")
    between: list[Number] | None = Field(
        None, min_length=2, max_length=2, description="Holds if the whole 95% interval is between these two."
    )

    @model_validator(mode="after")
    def _one_bound(self) -> "Bounded":
        given = [name for name in BOUNDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of below, above and between, not {' and '.join(given) or 'none'}")
        if self.between is not None and self.between[0] >= self.between[1]:
            raise ValueError("between should be a smaller and a larger number")
        return self

    @model_validator(mode="after")
    def _one_comparison(self) -> "Bounded":
        if getattr(self, "minus", None) is not None and getattr(self, "over", None) is not None:
            raise ValueError("has both minus and over: a difference or a ratio, not both")
        return self


class Quantity(Model):
    """A metric's mean over prompts: factor x (run - minus) + offset. What it leaves out, its check says."""

    run: Name = Field(description="Name of a run.")
    minus: Name | None = Field(None, description="Run whose metric is subtracted; unset: nothing is.")
    evaluation: Name | None = Field(None, description="Evaluation, instead of the check's.")
    metric: str | None = Field(None, description="Metric, instead of the check's.")
    classifier: Name | None = Field(None, description="Who reads attributes, instead of the check's classifier.")
    factor: Number = Field(1.0, description="The difference is multiplied by this.")
    offset: Number = Field(0.0, description="Then this is added.")


QuantityReference = Annotated[
    Annotated[Name, Tag("[name]")] | Annotated[Quantity, Tag("[quantity]")],
    Discriminator(lambda value: "[quantity]" if isinstance(value, (Mapping, Quantity)) else "[name]"),
]


class ResultCheck(Bounded):
    """A quantity of the results, its difference from another, or its ratio to another.

    Quantities on the same prompts are compared prompt by prompt.
    """

    evaluation: Name | None = Field(None, description="Evaluation the quantities are measured under.")
    metric: str | None = Field(None, description="Metric they are about.")
    classifier: Name | None = Field(
        None, description="Who reads attributes: a classifier of the preset or `reader`; unset: the evaluation's."
    )
    value: QuantityReference = Field(description="Name of a run, or a quantity.")
    minus: QuantityReference | None = Field(None, description="The effect is the difference value - minus.")
    over: QuantityReference | None = Field(None, description="The effect is the ratio value / over.")


class TrainingCheck(Bounded):
    """A loss at the end of training against the same at its start, each averaged over a share of the iterations."""

    training: Name = Field(description="Name of a run.")
    metric: Literal["loss/align", "loss/image", "loss/face", "loss/preserve"] = Field(description="The loss.")
    by: Literal["ratio", "difference"] = Field("ratio", description="The effect: end / start, or end - start.")
    window: Annotated[Positive, Field(le=0.5)] = Field(
        0.2, description="Share of the iterations that start and end are averaged over."
    )


class StudyCheck(Bounded):
    """A value of a gradient study, its difference from another, or its ratio to another."""

    study: Name = Field(description="Name of a gradient study.")
    where: Selection = Field(min_length=1, description="Column -> value: enough of them that one row is meant.")
    minus: Selection | None = Field(None, description="As `where`, what it does not say is equal: value - minus.")
    over: Selection | None = Field(None, description="As `where`, what it does not say is equal: value / over.")


def _kind(value: Any) -> str:
    names = value if isinstance(value, Mapping) else value.__class__.model_fields if isinstance(value, Model) else ()
    return next((f"[{kind}]" for kind in ("training", "study") if kind in names), "[results]")


Check = Annotated[
    Annotated[ResultCheck, Tag("[results]")]
    | Annotated[TrainingCheck, Tag("[training]")]
    | Annotated[StudyCheck, Tag("[study]")],
    Discriminator(_kind),
]


class Claim(Model):
    """A sentence of the paper, and what must be so if it is true."""

    claim: str = Field(description="The sentence.")
    place: str = Field(description="Where the paper makes it.")
    note: str | None = Field(None, description="What a reader has to know about the checks.")
    checks: list[Check] = Field(min_length=1, description="It holds if all of these do.")


class Claims(Model):
    """resources/claims.yaml: what the paper claims, as checks that a machine can make."""

    claims: dict[Name, Claim] = Field(description="Claims by name, in the order they are shown.")
