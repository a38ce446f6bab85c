"""What a run means: the settings that matter to it, and nothing else."""

from typing import Any, get_args

from distalign.config.methods import METHODS, UNCHANGED, is_finetuned
from distalign.config.models import RunSettings
from distalign.config.models.run import OCCUPATIONS, Part

LORA_PARTS = frozenset({"text_encoder", "unet"})


def run_meaning(settings: RunSettings) -> dict[str, Any]:
    """The settings that matter to a run: no rank without LoRA, no factors of attributes it does not align.

    Two runs of equal meaning are the same run; a new factor or default for something else makes no run stale.
    """
    if settings.method == UNCHANGED:
        return {"method": UNCHANGED}
    if not is_finetuned(settings.method):
        return _method_meaning(settings)
    meaning = settings.model_dump(exclude_none=True, exclude={"settings", "search"})
    meaning["train"] = [part for part in get_args(Part) if part in settings.train]
    if not LORA_PARTS & set(settings.train):
        meaning.pop("rank", None)
    if "prompt_prefix" not in settings.train:
        meaning.pop("prefix_tokens", None)
    if settings.gradient.weights == "exact":
        meaning["gradient"].setdefault("damping", 1.0)
    if settings.gradient.choice == "random":
        meaning["gradient"].pop("choice")
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


def measures(settings: RunSettings) -> bool:
    """Whether fitting a method looks at images."""
    return METHODS[settings.method].measures or bool(settings.search)


def _method_meaning(settings: RunSettings) -> dict[str, Any]:
    """Of a method that is not finetuned: its own settings, complete, and where they are searched."""
    method = METHODS[settings.method]
    own = {name: it.default for name, it in method.settings.items()} | settings.settings
    meaning: dict[str, Any] = {
        "method": settings.method,
        "version": method.version,
        "align": settings.align,
        "settings": {name: value for name, value in own.items() if name not in settings.search},
    }
    if settings.search:
        meaning["search"] = settings.search
    if measures(settings):
        meaning |= {"classifier": settings.classifier, "validation_images": settings.validation_images}
    if settings.prompt_sets != [OCCUPATIONS]:
        meaning["prompt_sets"] = settings.prompt_sets
    return meaning


def drop_none(value: Any) -> Any:
    """The value with unset keys dropped at every depth, tuples as lists."""
    if isinstance(value, dict):
        return {key: drop_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [drop_none(item) for item in value]
    return value
