"""What a run means: the settings that matter to it, and nothing else."""

from typing import Any, get_args

from distalign.config.methods import UNCHANGED
from distalign.config.models import RunSettings
from distalign.config.models.run import OCCUPATIONS, Part

LORA_PARTS = frozenset({"text_encoder", "unet"})


def run_meaning(settings: RunSettings) -> dict[str, Any]:
    """The settings that matter to a run: no rank without LoRA, no factors of attributes it does not align.

    Two runs of equal meaning are the same run; a new factor or default for something else makes no run stale.
    """
    if settings.method == UNCHANGED:
        return {"method": UNCHANGED}
    meaning = settings.model_dump(exclude_none=True)
    meaning["train"] = [part for part in get_args(Part) if part in settings.train]
    if not LORA_PARTS & set(settings.train):
        meaning.pop("rank", None)
    if "prompt_prefix" not in settings.train:
        meaning.pop("prefix_tokens", None)
    if settings.gradient.weights == "exact":
        meaning["gradient"].setdefault("damping", 1.0)
    for key in ("agree", "face_region"):
        factors = meaning["loss"][key]
        meaning["loss"][key] = {attribute: factors[attribute] for attribute in settings.align if attribute in factors}
    if settings.targets == "transport":
        meaning.pop("targets")
    if settings.prompt_sets == [OCCUPATIONS]:
        meaning.pop("prompt_sets")
    if settings.validate_every is None:
        meaning.pop("validation_images", None)
    return meaning


def drop_none(value: Any) -> Any:
    """The value with unset keys dropped at every depth, tuples as lists."""
    if isinstance(value, dict):
        return {key: drop_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [drop_none(item) for item in value]
    return value
