"""The models of config.yaml and of preset files: the one truth about keys, types, defaults and their descriptions."""

from distalign.config.models.gradient_study import GradientStudy, GradientStudyBudget
from distalign.config.models.preset import EvaluationSettings, Preset, Weights
from distalign.config.models.run import Gradient, Loss, RunSettings
from distalign.config.models.study import Config, FigureSpec, PaperNumbers, Row, TableSpec

__all__ = [
    "Config",
    "EvaluationSettings",
    "FigureSpec",
    "Gradient",
    "GradientStudy",
    "GradientStudyBudget",
    "Loss",
    "PaperNumbers",
    "Preset",
    "Row",
    "RunSettings",
    "TableSpec",
    "Weights",
]
