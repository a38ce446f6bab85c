"""Studies of gradient estimators, completed from the preset."""

from collections.abc import Mapping
from typing import Any

from distalign.config.models import Config, GradientStudy, GradientStudyBudget, Preset
from distalign.config.models.run import OCCUPATIONS
from distalign.config.problems import Problems
from distalign.config.specs import drop_none

LISTS = ("estimators", "guidance", "sampler_steps", "backbones")


def complete_studies(
    config: Config, preset: Preset, prompts: Mapping[str, Mapping[str, Any]], file: str, problems: Problems
) -> dict[str, GradientStudy]:
    """The studies a preset has, none without a budget: no list is empty, all are within the preset's limits.

    Notes names that figures have too, values listed twice, lists that neither the study nor the preset fills, and a
    preset without the prompts they use.
    """
    complete = {}
    used = prompts.get(OCCUPATIONS)
    lacking = used is None or (used and "validation" not in used)  # an unreadable file is noted elsewhere
    if config.gradient_studies and preset.gradient_study and lacking:
        message = (
            f"preset '{preset.name}' lacks the validation prompts of set '{OCCUPATIONS}', which these are made with"
        )
        problems.add(file, ("gradient_studies",), message)
    for name, study in config.gradient_studies.items():
        if name in config.figures:
            problems.add(file, ("gradient_studies", name), "a figure has this name too; choose another")
        for key in LISTS:
            values = getattr(study, key)
            for index, value in enumerate(values):
                if value in values[:index]:
                    problems.add(file, ("gradient_studies", name, key, index), "this is listed twice", value)
        if preset.gradient_study is None:
            continue
        filled = _complete(name, study, preset, preset.gradient_study, file, problems)
        if filled.backbones:
            complete[name] = filled
    return complete


def _complete(
    name: str, study: GradientStudy, preset: Preset, budget: GradientStudyBudget, file: str, problems: Problems
) -> GradientStudy:
    usual: Mapping[str, Any] = preset.defaults
    guidance = study.guidance or [usual[key] for key in ("guidance",) if key in usual]
    steps = study.sampler_steps or usual.get("sampler_steps", [])[:1]
    for key, values in (("guidance", guidance), ("sampler_steps", steps)):
        if not values:
            message = f"given neither here nor by the defaults of preset '{preset.name}'"
            problems.add(file, ("gradient_studies", name, key), message)
    limits = budget.at_most
    if limits is not None and limits.sampler_steps is not None:
        steps = list(dict.fromkeys(min(count, limits.sampler_steps) for count in steps))
    return study.model_copy(
        update={
            "runs": min(study.runs, limits.runs) if limits is not None and limits.runs is not None else study.runs,
            "guidance": guidance,
            "sampler_steps": steps,
            "backbones": [name for name in study.backbones if name == "shipped" or budget.early is not None],
        }
    )


def gradient_study_spec(study: GradientStudy, preset: Preset, world: Mapping[str, Any]) -> dict[str, Any]:
    """What a complete study depends on; `kind: loss` also looks through the image loss's encoders.

    `world`: prompts and how images are made, from the rest of the configuration.
    """
    budget, spec = preset.gradient_study, {**study.model_dump(exclude={"title"}), **world}
    if budget is not None and study.kind == "loss":
        spec |= budget.model_dump(include={"iterations", "learning_rate", "prefix_tokens"})
        spec |= {"encoders": preset.encoders.training.model_dump()}
    early = early_spec(preset) if "early" in study.backbones else None
    return drop_none({**spec, "early": early, "micro_batch": preset.micro_batch.model_dump()})


def early_spec(preset: Preset) -> dict[str, Any]:
    """What the model of a short training depends on; empty where the preset trains none."""
    early = preset.gradient_study and preset.gradient_study.early
    return drop_none({**early.model_dump(), "backbone": preset.backbone.model_dump()}) if early else {}
