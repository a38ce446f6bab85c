"""Reading YAML and JSON files of a repository, with errors that name the file and line."""

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from distalign.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML in which a key given twice is an error: the first would be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                line = node.value[index][0].start_mark.line + 1
                raise UserError(f"{self.name}, line {line}: the key {key!r} is given twice; remove one.")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; an empty file is an empty mapping."""
    loader = _Loader(_text(path))
    loader.name = str(path)
    try:
        return loader.get_single_data() or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    finally:
        loader.dispose()


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
