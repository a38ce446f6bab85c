"""Problems of configuration files: collected, placed in the YAML, and told with the nearest valid name."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pydantic import ValidationError

from distalign.config.models.base import Model
from distalign.errors import UserError
from distalign.secrets import redact

Path = tuple[str | int, ...]
ABSENT = object()
MESSAGES = {
    "extra_forbidden": "unknown key",
    "missing": "this key is missing",
    "string_pattern_mismatch": "not a valid name: letters, digits, '.', '_' and '-', beginning with a letter or digit",
    "model_type": "should be a mapping (key: value)",
    "dict_type": "should be a mapping (key: value)",
    "list_type": "should be a list",
    "model_attributes_type": "should be a mapping (key: value)",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what was found (ABSENT: nothing), and what to do."""

    file: str
    path: Path
    message: str
    value: Any = ABSENT

    def __str__(self) -> str:
        where = yaml_path(self.path) or "the file"
        found = "" if self.value is ABSENT else f": {_shown(self.value)}"
        return f"  {where}{found}\n      {self.message}"


@dataclass
class Problems:
    """Collects problems, each once. Paths are those of the file, also after items of its lists were left out."""

    found: dict[tuple[str, Path, str], Problem] = field(default_factory=dict)
    left_out: set[tuple[str, Path]] = field(default_factory=set)

    def add(self, file: str, path: Path, message: str, value: Any = ABSENT) -> None:
        """Note one problem, unless it may only follow from something inside it that was wrong and left out."""
        path = self.written(file, path)
        if any(where == file and left[: len(path)] == path for where, left in self.left_out):
            return
        self.found.setdefault((file, path, message), Problem(file, path, message, value))

    def leave_out(self, file: str, path: Path) -> None:
        """Remember that something wrong was taken out of the content of a file."""
        self.left_out.add((file, self.written(file, path)))

    def written(self, file: str, path: Path) -> Path:
        """The path in the file of what stands at `path` now."""
        result: Path = ()
        for part in path:
            if isinstance(part, int):
                for index in sorted(self._items_left_out(file, result)):
                    part += index <= part
            result = (*result, part)
        return result

    def _items_left_out(self, file: str, path: Path) -> list[int]:
        items = [left[-1] for where, left in self.left_out if where == file and left[:-1] == path]
        return [item for item in items if isinstance(item, int)]

    def unknown(self, file: str, path: Path, what: str, name: Any, valid: Iterable[str]) -> None:
        """Note a name that is none of the valid ones."""
        self.add(file, path, f"{what}{nearest(name, valid)}", name)

    def add_validation(self, file: str, error: ValidationError, raw: Any, model: type[Model]) -> None:
        """Note everything a model found wrong with the content of a file."""
        schema = _schema(model)
        for detail in error.errors(include_url=False):
            path = real_path(detail["loc"], raw)
            if detail["type"] in {"union_tag_invalid", "union_tag_not_found"}:
                self._add_kind(file, path, detail, schema)
                continue
            value = ABSENT if detail["type"] == "missing" else detail["input"]
            message = MESSAGES.get(detail["type"]) or detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
            if detail["type"] in {"extra_forbidden", "literal_error"} or detail["loc"][-1:] == ("[key]",):
                parent, name = (path[:-1], path[-1]) if detail["type"] != "literal_error" else (path, value)
                valid = valid_names(schema, parent, raw)
                if detail["type"] == "extra_forbidden" and name in valid_names(schema, parent):
                    message = f"has no meaning for kind '{detail['loc'][-2]}'"
                message += nearest(name, valid)
            self.add(file, path, message, value)

    def _add_kind(self, file: str, path: Path, detail: Any, schema: Mapping[str, Any]) -> None:
        """Note that what should tell the alternatives at `path` apart is missing, or is none of them."""
        key = detail["ctx"]["discriminator"].strip("'")
        value = detail["input"].get(key, ABSENT)
        message = MESSAGES["missing"] if value is ABSENT else f"no {key} of this name"
        kinds = [node["const"] for node in _nodes(schema, (*path, key)) if "const" in node]
        self.add(file, (*path, key), message + nearest(value, kinds), value)


class ConfigError(UserError):
    """All problems of a configuration at once."""

    def __init__(self, problems: Problems) -> None:
        self.problems = list(problems.found.values())
        files = dict.fromkeys(problem.file for problem in self.problems)
        super().__init__("\n".join(self._section(file) for file in files))

    def _section(self, file: str) -> str:
        own = [problem for problem in self.problems if problem.file == file]
        count = "1 problem" if len(own) == 1 else f"{len(own)} problems"
        return "\n".join([f"{file}: {count}", *map(str, own)])


def nearest(name: Any, valid: Iterable[str]) -> str:
    """The end of a message: the nearest valid name, or all of them where none is near and they are few."""
    names = list(dict.fromkeys(valid))
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; valid: {', '.join(names)}" if 0 < len(names) <= 40 else ""


def yaml_path(path: Path) -> str:
    """`runs.ours.loss` with `[2]` for places in lists; unusual keys in quotes."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{_key(part)}" for part in path]
    return "".join(parts).removeprefix(".")


def real_path(location: Sequence[str | int], raw: Any) -> Path:
    """The part of a pydantic location that stands in the file: without tags of unions and marks of keys.

    The tag of a union whose members have checks of their own is in brackets, as the marks are: it can come last.
    """
    path: list[str | int] = []
    for index, part in enumerate(location):
        if (isinstance(raw, Mapping) and part in raw) or (isinstance(raw, list) and isinstance(part, int)):
            raw = raw[part]  # type: ignore[index]
            path.append(part)
        elif index == len(location) - 1 and isinstance(raw, Mapping) and not str(part).startswith("["):
            path.append(part)
    return tuple(path)


def valid_names(schema: Mapping[str, Any], path: Path, raw: Any = None) -> list[str]:
    """Names a JSON schema allows at a path: keys of a mapping, or words of an enumeration.

    With `raw`, the content of the file, only those of the alternative that its `kind` (or the like) chooses.
    """
    nodes = _nodes(schema, path, raw)
    return list(dict.fromkeys(name for node in nodes for name in (*node.get("properties", ()), *node.get("enum", ()))))


@cache
def _schema(model: type[Model]) -> dict[str, Any]:
    return model.model_json_schema()


def _nodes(schema: Mapping[str, Any], path: Path, raw: Any = None) -> list[Mapping[str, Any]]:
    """The parts of a JSON schema that may hold for what stands at a path."""
    definitions = schema.get("$defs", {})
    nodes = _alternatives(schema, definitions, raw)
    for part in path:
        raw = _inside(raw, part)
        nodes = [x for node in nodes for child in _children(node, part) for x in _alternatives(child, definitions, raw)]
    return nodes


def _inside(raw: Any, part: str | int) -> Any:
    try:
        return raw[part]
    except (LookupError, TypeError):
        return None


def _alternatives(node: Mapping[str, Any], definitions: Mapping[str, Any], raw: Any) -> list[Mapping[str, Any]]:
    if "$ref" in node:
        return _alternatives(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions, raw)
    options = node.get("anyOf", node.get("oneOf"))
    if "discriminator" in node and isinstance(raw, Mapping):
        chosen = node["discriminator"]["mapping"].get(str(raw.get(node["discriminator"]["propertyName"])))
        options = [{"$ref": chosen}] if chosen else options
    return [found for option in options for found in _alternatives(option, definitions, raw)] if options else [node]


def _children(node: Mapping[str, Any], part: str | int) -> list[Mapping[str, Any]]:
    if isinstance(part, int):
        return [node["items"]] if "items" in node else []
    for mapping in ({part: node.get("properties", {}).get(part)}, node.get("patternProperties", {})):
        if children := [child for child in mapping.values() if child]:
            return children
    return [node["additionalProperties"]] if isinstance(node.get("additionalProperties"), Mapping) else []


def _key(part: Any) -> str:
    text = str(part)
    return text if text and all(character.isalnum() or character in "_-+" for character in text) else repr(text)


def _shown(value: Any) -> str:
    text = redact(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 80 else f"{text[:77]}..."
