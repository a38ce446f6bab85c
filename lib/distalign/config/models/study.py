"""The paper as data: runs, evaluations, tables and figures of config.yaml."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Discriminator, Field, Tag

from distalign.config.models.base import Model, Name
from distalign.config.models.figures import Figure
from distalign.config.models.gradient_study import GradientStudy
from distalign.config.models.preset import EvaluationEntry
from distalign.config.models.run import Align, RunEntry, Seeds

RunReference = Annotated[
    Annotated[Name, Tag("name")] | Annotated[RunEntry, Tag("inline")],
    Discriminator(lambda value: "inline" if isinstance(value, Mapping) else "name"),
]


class Row(Model):
    """A row of a table: one run under one evaluation."""

    run: RunReference = Field(description="Name of a run, or a new run written in place.")
    label: str | None = Field(None, description="What the row is called; unset: as the run.")
    group: str | None = Field(None, description="Rows of one group stand together under this heading.")
    evaluation: Name | None = Field(None, description="Evaluation of this row, instead of the table's.")
    classifier: Name | None = Field(
        None,
        description="Who reads bias and frequencies in this row, instead of the evaluation's classifier: another of "
        "the preset's classifiers, or `reader`.",
    )
    seeds: Seeds | None = Field(
        None, description="Repetitions shown in this row, instead of the run's own; several give a spread over seeds."
    )
    paper: str | None = Field(
        None, description="The paper's numbers for this row: table/row of resources/paper_numbers.yaml."
    )


class TableSpec(Model):
    """A table, written as parquet, csv, md, tex and html."""

    title: str = Field(description="Caption.")
    evaluation: Name = Field(description="Evaluation the rows are measured under.")
    columns: list[str] = Field(
        min_length=1,
        description="Metrics: bias/A, distance/A (to the run's target) for attributes A such as gender or gender+race, "
        "frequency/age=old, clip_t, clip_i, dino, face_found, concept_readable, kid, fd_dino. With `@` the classifier "
        "that reads bias, distance or frequency in this column, whatever the row says: bias/gender@loss.",
    )
    target: Align | None = Field(
        None, description="What distance/A is measured to in every row, instead of each run's own target."
    )
    rows: list[Row] = Field(min_length=1, description="The rows, in order.")


class Number(Model):
    """A number the paper reports."""

    mean: float = Field(description="The number, a mean over prompts.")
    std: float | None = Field(None, description="Standard deviation over prompts, where the paper prints one.")


class PaperTable(Model):
    """A table of the paper."""

    title: str = Field(description="Caption.")
    source: str = Field(description="Where it stands and where it was read.")
    rows: dict[Name, dict[str, Number]] = Field(description="Row -> metric -> number.")


class PaperNumbers(Model):
    """resources/paper_numbers.yaml: what the paper reports, to stand beside our numbers."""

    tables: dict[Name, PaperTable] = Field(description="Tables by name.")


class Config(Model):
    """config.yaml: what is run and shown. Machines belong into profiles, budgets into presets."""

    preset: Name = Field(description="The preset: a file of presets/, without .yaml.")
    seeds: Seeds = Field(description="Repetitions of every run that does not say otherwise.")
    runs: dict[Name, RunEntry] = Field(min_length=1, description="Runs by name.")
    evaluations: dict[Name, EvaluationEntry] = Field(min_length=1, description="Evaluations by name.")
    tables: dict[Name, TableSpec] = Field(default_factory=dict, description="Tables by name.")
    figures: dict[Name, Figure] = Field(default_factory=dict, description="Figures by name.")
    gradient_studies: dict[Name, GradientStudy] = Field(
        default_factory=dict, description="Studies of gradient estimators by name; each is also a figure."
    )
