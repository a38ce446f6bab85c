"""From entries of config.yaml to complete runs: `from:`, the preset's defaults, runs written inside table rows."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError

from distalign.config.attributes import ATTRIBUTES
from distalign.config.fingerprint import fingerprint
from distalign.config.methods import UNCHANGED, is_finetuned
from distalign.config.models import Config, Preset, RunSettings
from distalign.config.models.run import Part
from distalign.config.problems import Path, Problems

LONGEST_NAME = 90
OF_METHODS = {"method", "align", "settings", "search", "prompt_sets", "classifier", "validation_images"}


@dataclass(frozen=True)
class Layer:
    """Settings written in one place of one file."""

    file: str
    path: Path
    settings: Mapping[str, Any]

    def has(self, path: Path) -> bool:
        """Whether this place sets the key."""
        value: Any = self.settings
        for part in path:
            if not isinstance(value, Mapping) or part not in value:
                return False
            value = value[part]
        return True


@dataclass(frozen=True)
class Run:
    """A complete run, and where each of its settings was written (most specific first)."""

    name: str
    settings: RunSettings
    seeds: tuple[int, ...]
    layers: tuple[Layer, ...]

    def place(self, path: Path) -> tuple[str, Path]:
        """File and path where a setting stands; of a setting nobody wrote, where the run stands."""
        for layer in self.layers:
            if layer.has(path):
                return layer.file, layer.path + path
        return self.layers[0].file, self.layers[0].path + path

    def inherited(self, path: Path) -> str:
        """Which run is meant, for a message that stands at another run this one is `from`; else empty."""
        own, (file, place) = self.layers[0], self.place(path)
        return f" (for run '{self.name}')" if file == own.file and place != own.path + path else ""


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, mappings inside them likewise."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge(result[key], value) if both and not _replaces(key, value) else value
    return result


def _replaces(key: str, value: Mapping[str, Any]) -> bool:
    """Whether nothing is inherited: a distribution would mix with the new one, an estimator's options are its own."""
    return key == "align" or (key == "gradient" and "weights" in value)


class Expansion:
    """Resolves the entries of one configuration; what is wrong goes to `problems`."""

    def __init__(
        self,
        config: Config,
        config_file: str,
        preset: Preset,
        preset_file: str,
        names: frozenset[str],
        problems: Problems,
    ) -> None:
        self.config, self.config_file = config, config_file
        self.preset, self.preset_file = preset, preset_file
        self.names = names  # also of entries that were too wrong to be in `config`
        self.problems = problems

    def named_runs(self) -> dict[str, Run]:
        """The runs of `runs:` that could be resolved."""
        runs = {name: self.run(name, ("runs", name), entry) for name, entry in self.config.runs.items()}
        return {name: run for name, run in runs.items() if run is not None}

    def run(self, name: str, path: Path, entry: Mapping[str, Any]) -> Run | None:
        """One entry, complete; None where something is wrong."""
        chain = self._chain(path, entry)
        if chain is None:
            return None
        layers = [*self._with_preset_of_each(chain), *self._of_the_preset(chain)]
        layers.append(Layer(self.preset_file, ("defaults",), self.preset.defaults))
        merged: dict[str, Any] = {}
        for layer in reversed(layers):
            merged = merge(merged, layer.settings)
        seeds = next((layer.settings["seeds"] for layer in chain if layer.settings.get("seeds")), self.config.seeds)
        self._refuse_settings_without_meaning(merged, chain)
        try:
            settings = RunSettings.model_validate({key: merged[key] for key in merged.keys() - {"from", "seeds"}})
        except ValidationError as error:
            self._add_incomplete(error, layers)
            return None
        return Run(name, _shortened(settings), tuple(seeds), tuple(layers))

    def _with_preset_of_each(self, chain: list[Layer]) -> Iterator[Layer]:
        """Each named run of the chain, followed by what the preset says of it."""
        for layer in chain:
            yield layer
            name = layer.path[1] if layer.path[0] == "runs" else None
            if name in self.preset.by_run:
                yield Layer(self.preset_file, ("by_run", name), self.preset.by_run[name])

    def _of_the_preset(self, chain: list[Layer]) -> Iterator[Layer]:
        """What the preset says of runs of the method, that train the same parts, and that align the same attributes."""
        method = next((layer.settings["method"] for layer in chain if layer.settings.get("method")), None)
        if method in self.preset.by_method:
            yield Layer(self.preset_file, ("by_method", method), self.preset.by_method[method])
        trained = next((layer.settings["train"] for layer in chain if layer.settings.get("train")), ["text_encoder"])
        aligned: Mapping[str, Any] = next(
            (layer.settings["align"] for layer in chain if layer.settings.get("align")), {}
        )
        for section, names, order in (
            ("by_trained", trained, get_args(Part)),
            ("by_attributes", aligned, ATTRIBUTES),
        ):
            key = "+".join(name for name in order if name in names)
            if key in getattr(self.preset, section):
                yield Layer(self.preset_file, (section, key), getattr(self.preset, section)[key])

    def _chain(self, path: Path, entry: Mapping[str, Any]) -> list[Layer] | None:
        """The entry and those it is `from`, most specific first; None if one is unknown or they form a cycle."""
        layers = [Layer(self.config_file, path, entry)]
        visited = [path[1]] if path[0] == "runs" else []
        while base := layers[-1].settings.get("from"):
            at = (*layers[-1].path, "from")
            if base in visited:
                cycle = visited[visited.index(base) :]
                first = min(range(len(cycle)), key=lambda index: str(cycle[index]))  # one report per cycle
                names = " -> ".join(map(str, [*cycle[first:], *cycle[:first], cycle[first]]))
                self.problems.add(self.config_file, ("runs", cycle[first], "from"), f"a cycle: {names}")
                return None
            if base not in self.config.runs:
                if base not in self.names:
                    self.problems.unknown(self.config_file, at, "no run of this name", base, self.config.runs)
                return None
            visited.append(base)
            layers.append(Layer(self.config_file, ("runs", base), self.config.runs[base]))
        return layers

    def _refuse_settings_without_meaning(self, merged: Mapping[str, Any], chain: list[Layer]) -> None:
        method = str(merged.get("method"))
        if is_finetuned(method):
            return
        allowed, why = OF_METHODS, "which is not finetuned by this trainer"
        if method == UNCHANGED:
            allowed, why = {"method"}, "which changes nothing"
        for layer in chain:
            for key in layer.settings.keys() - allowed - {"from", "seeds"}:
                message = f"has no meaning for method '{method}', {why}"
                self.problems.add(layer.file, (*layer.path, key), message, layer.settings[key])

    def _add_incomplete(self, error: ValidationError, layers: list[Layer]) -> None:
        for detail in error.errors(include_url=False):
            path = tuple(detail["loc"])
            layer = next((layer for layer in layers if layer.has(path)), layers[0])
            message = f"this key is given neither here nor by preset '{self.config.preset}'"
            self.problems.add(layer.file, layer.path + path, message)


def _shortened(settings: RunSettings) -> RunSettings:
    """The settings with a duration taken into the number of iterations: two ways to say the same mean the same."""
    if settings.duration is None:
        return settings
    iterations = max(1, round(settings.iterations * settings.duration))
    return settings.model_copy(update={"iterations": iterations, "duration": None})


def inline_name(entry: Mapping[str, Any]) -> str:
    """A stable, readable name for a run written inside a row: `ours_gender.rank-8`."""
    changes = {key: value for key, value in entry.items() if key not in {"from", "seeds"}}
    base = entry.get("from") or changes.pop("method", "run")
    name = ".".join([base, "_".join(_words(changes))]) if changes else base
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}-{fingerprint(entry)[:8]}"


def _words(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    words = []
    for key, value in settings.items():
        if key == "align":
            words.append("-".join([key, *(_target(attribute, shares) for attribute, shares in value.items())]))
        elif isinstance(value, Mapping):
            words += _words(value, f"{prefix}{key}-")
        else:
            values = value if isinstance(value, list) else [value]
            words.append(
                "-".join([prefix + key, *(f"{v:g}" if isinstance(v, float) else str(v).lower() for v in values)])
            )
    return words


def _target(attribute: str, shares: Mapping[str, float]) -> str:
    uniform = len(set(shares.values())) == 1
    return attribute if uniform else "-".join([attribute, *(f"{share:g}" for share in shares.values())])
