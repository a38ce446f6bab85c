"""From raw mappings to models: whatever is wrong is noted and left out, so that one pass finds everything."""

import copy
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from distalign.config import files
from distalign.config.expansion import merge
from distalign.config.models import PaperNumbers, Preset
from distalign.config.models.base import Model
from distalign.config.problems import Path as YamlPath
from distalign.config.problems import Problems, real_path
from distalign.errors import UserError

PAPER_NUMBERS = "resources/paper_numbers.yaml"
SPLITS = ("train", "validation", "test")
AnyModel = TypeVar("AnyModel", bound=Model)


def salvage(model: type[AnyModel], raw: Any, file: str, problems: Problems) -> AnyModel | None:
    """The model of what is right in `raw`; None if nothing could be made of it. Everything wrong is noted."""
    raw = copy.deepcopy(raw)
    while True:
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            problems.add_validation(file, error, raw, model)
            wrong = {_wrong_part(detail, raw) for detail in error.errors(include_url=False)}
            if () in wrong:
                return None
            for path in sorted(wrong, key=_order, reverse=True):
                problems.leave_out(file, path)
                _remove(raw, path)


def _wrong_part(detail: Any, raw: Any) -> YamlPath:
    path = real_path(detail["loc"], raw)
    return path[:-1] if detail["type"] == "missing" else path


def _order(path: YamlPath) -> list[tuple[int, str]]:
    """From the end: parts before what holds them, later items of a list before earlier ones."""
    return [(part, "") if isinstance(part, int) else (-1, part) for part in path]


def _remove(raw: Any, path: YamlPath) -> None:
    for part in path[:-1]:
        raw = raw[part]
    del raw[path[-1]]


def load_preset(root: Path, name: str, problems: Problems) -> tuple[Preset | None, str]:
    """A preset, with what it takes `from` others, and the file it stands in."""
    file = f"presets/{name}.yaml"
    if name not in preset_names(root):
        problems.unknown("config.yaml", ("preset",), "no preset of this name", name, preset_names(root))
        return None, file
    raw = _with_base(root, name, [], problems)
    return (None if raw is None else salvage(Preset, {**raw, "name": name}, file, problems)), file


def load_paper_numbers(root: Path, problems: Problems) -> PaperNumbers:
    """What the paper reports."""
    try:
        raw = files.read_yaml(root / PAPER_NUMBERS)
    except UserError as error:
        problems.add(PAPER_NUMBERS, (), str(error))
        raw = {"tables": {}}
    return salvage(PaperNumbers, raw, PAPER_NUMBERS, problems) or PaperNumbers(tables={})


def preset_names(root: Path) -> list[str]:
    """The presets there are."""
    return sorted(path.stem for path in (root / "presets").glob("*.yaml"))


def _with_base(root: Path, name: str, visited: list[str], problems: Problems) -> dict[str, Any] | None:
    file = f"presets/{name}.yaml"
    try:
        raw = files.read_yaml(root / file)
    except UserError as error:
        problems.add(file, (), str(error))
        return None
    if not isinstance(raw, dict):
        problems.add(file, (), "should be a mapping (key: value)", raw)
        return None
    base = raw.pop("from", None)
    if base is None:
        return raw
    visited = [*visited, name]
    if base in visited:
        problems.add(file, ("from",), f"a cycle: {' -> '.join([*visited, base])}", base)
    elif base not in preset_names(root):
        problems.unknown(file, ("from",), "no preset of this name", base, preset_names(root))
    elif (below := _with_base(root, base, visited, problems)) is not None:
        return merge(below, raw)
    return None


def count_concepts(concepts: Any) -> int:
    """How many concepts a split has, in one list or in groups."""
    return sum(map(len, concepts.values())) if isinstance(concepts, dict) else len(concepts)


def prompt_splits(root: Path, preset: Preset, preset_file: str, problems: Problems) -> dict[str, dict[str, Any]]:
    """Per prompt set and split what makes its prompts: the template and the concepts."""
    sets: dict[str, dict[str, Any]] = {}
    for name, source in preset.prompts.items():
        at = ("prompts", name, "file")
        sets[name] = {}
        try:
            content = files.read_json(root / source.file)
            found = {split: content["splits"][split] for split in SPLITS if split in content["splits"]}
            if not found:
                raise KeyError("splits")
            template = content["template"]
            sets[name] = {split: {"template": template, "concepts": own} for split, own in found.items()}
        except UserError as error:
            problems.add(preset_file, at, str(error), source.file)
        except (KeyError, TypeError):
            message = f"should hold a template and splits, some of {', '.join(SPLITS)}"
            problems.add(preset_file, at, message, source.file)
    return sets
