"""The models of config.yaml and of preset files: the one truth about keys, types, defaults and their descriptions."""

from distalign.config.models.figures import (
    ContactSheet,
    Figure,
    Frequencies,
    GuidanceSweep,
    Tradeoff,
    TrainingCurves,
)
from distalign.config.models.gradient_study import GradientStudy, GradientStudyBudget
from distalign.config.models.preset import EvaluationSettings, Preset
from distalign.config.models.run import Gradient, Loss, RunSettings
from distalign.config.models.study import Config, PaperNumbers, Row, TableSpec
from distalign.config.models.weights import Weights

__all__ = [
    "Config",
    "ContactSheet",
    "EvaluationSettings",
    "Figure",
    "Frequencies",
    "Gradient",
    "GradientStudy",
    "GradientStudyBudget",
    "GuidanceSweep",
    "Loss",
    "PaperNumbers",
    "Preset",
    "Row",
    "RunSettings",
    "TableSpec",
    "Tradeoff",
    "TrainingCurves",
    "Weights",
]
