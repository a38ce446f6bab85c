"""The configuration, checked and complete: what the workflow asks for names, settings and specifications."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distalign.config import checks
from distalign.config.claims import Measured, claims_spec, load_claims
from distalign.config.expansion import Expansion, Run, merge
from distalign.config.figures import FigureChecks, figure_spec
from distalign.config.fingerprint import fingerprint
from distalign.config.gradient_studies import complete_studies, gradient_study_spec
from distalign.config.loading import load_paper_numbers, load_preset, prompt_splits, salvage
from distalign.config.methods import METHODS, UNCHANGED, is_finetuned
from distalign.config.metrics import TAKES_TARGET
from distalign.config.models import Config, EvaluationSettings, Figure, GradientStudy, Preset, RunSettings
from distalign.config.models.claims import Claim
from distalign.config.models.run import OCCUPATIONS
from distalign.config.once import once
from distalign.config.problems import ConfigError, Problems, nearest
from distalign.config.specs import drop_none, measures, run_meaning
from distalign.config.tables import Table, TableResolution
from distalign.config.world import World
from distalign.errors import UserError

CONFIG_FILE = "config.yaml"


class Runs(dict[str, RunSettings]):
    """Settings of runs by name, for which an unknown name is a mistake of the user's."""

    def __missing__(self, name: str) -> RunSettings:
        raise UserError(f"no run of this name: {name}{nearest(name, self)}")


@dataclass(frozen=True)
class Study(World):
    """Runs, evaluations, tables and figures under one preset, and the specifications the jobs work from.

    A specification is a JSON-able dictionary of what an artefact depends on; files among its inputs are not in it.
    """

    expanded: Mapping[str, Run]
    evaluations: Mapping[str, EvaluationSettings]
    tables: Mapping[str, Table]
    figures: Mapping[str, Figure]
    gradient_studies: Mapping[str, GradientStudy]
    prompts: Mapping[str, Mapping[str, Any]]
    claims: Mapping[str, Claim]

    @cached_property
    def runs(self) -> dict[str, RunSettings]:
        """Settings of every run, those written inside rows included; of another name, a `UserError`."""
        return Runs({name: run.settings for name, run in self.expanded.items()})

    def seeds(self, run: str) -> list[int]:
        """Repetitions of a run."""
        return list(self.expanded[run].seeds)

    def all_seeds(self, run: str) -> list[int]:
        """Repetitions of a run, those that only a row of a table asks for included."""
        return list(dict.fromkeys([*self.expanded[run].seeds, *self._asked.get(run, ())]))

    def adapted(self, run: str) -> bool:
        """Whether a run has something to sample with beside the model: an adapter, or another method's."""
        return self.expanded[run].settings.method != UNCHANGED

    def finetuned(self, run: str) -> bool:
        """Whether a run is finetuned by the trainer."""
        return is_finetuned(self.expanded[run].settings.method)

    def converted(self, run: str) -> bool:
        """Whether a run's adapter comes out of a file."""
        return self.adapted(run) and METHODS[self.expanded[run].settings.method].converted

    @once
    def finetune_spec(self, run: str, seed: int) -> dict[str, Any]:
        """What an adapter depends on: settings that matter to it, its plan, and the world they act in."""
        settings = self.expanded[run].settings
        meaning = run_meaning(settings)
        if not self.finetuned(run):
            return meaning
        return drop_none(
            {
                **meaning,
                "seed": seed,
                "plan": self.plan_spec(run, seed),
                "validation_prompts": self._prompts(settings, "validation") if settings.validate_every else None,
                "bank": self._faces_used(self.preset.bank),
                "micro_batch": self.preset.micro_batch.model_dump(),
            }
        )

    @once
    def fit_spec(self, run: str, seed: int) -> dict[str, Any]:
        """What fitting depends on, sampling as in the evaluations; for a converted adapter, its file and its model."""
        settings, preset = self.expanded[run].settings, self.preset
        if self.converted(run):
            return drop_none({**run_meaning(settings), "backbone": preset.backbone.model_dump()})
        split = run_meaning(settings)["settings"].get("fit_on", "train")
        looks = self._looking(settings.classifier) if measures(settings) else {}
        return drop_none(
            {
                **run_meaning(settings),
                "seed": seed,
                "prompts": self._prompts(settings, split),
                "validation_prompts": self._prompts(settings, "validation") if settings.search else None,
                **{key: preset.evaluation[key] for key in ("sampler_steps", "guidance")},
                **self._generator(),
                **looks,
                "micro_batch": preset.micro_batch.model_dump(),
            }
        )

    @once
    def plan_spec(self, run: str, seed: int) -> dict[str, Any]:
        """What the originals of training depend on: prompts, noises and all that looks at the frozen model's images.

        `iterations` counts the different ones: with a noise period the same return.
        """
        settings, preset = self.expanded[run].settings, self.preset
        return drop_none(
            {
                "seed": seed,
                "train_prompts": self._prompts(settings, "train"),
                "iterations": min(settings.iterations, settings.noise_period or settings.iterations),
                "images_per_step": settings.images_per_step,
                "prompts_per_step": settings.prompts_per_step,
                "sampler_steps": settings.sampler_steps,
                "guidance": settings.guidance,
                **self._generator(),
                **self._looking(settings.classifier),
                "micro_batch": preset.micro_batch.model_dump(),
            }
        )

    @once
    def plan_id(self, run: str, seed: int) -> str:
        """Name of a plan: runs that share it share the originals."""
        return fingerprint(self.plan_spec(run, seed))[:12]

    @once
    def image_spec(self, run: str, seed: int, evaluation: str) -> dict[str, Any]:
        """What generated images depend on. `adapter`: method, trained parts and fingerprint of finetuning or fit."""
        settings, how = self.expanded[run].settings, self.evaluations[evaluation]
        adapter, looks = {"method": settings.method}, {}
        if self.finetuned(run):
            finetuning = self.finetune_spec(run, seed)
            adapter |= {"train": finetuning["train"], "fingerprint": self._adapter_id(run, seed)}
        elif self.adapted(run):
            adapter["fingerprint"] = self._adapter_id(run, seed)
            if METHODS[settings.method].looks:
                looks = {"align": settings.align, **self._looking(settings.classifier)}
        return drop_none(
            {
                "seed": seed,
                "adapter": adapter,
                "split": how.prompts,
                "at_most": how.at_most,
                "prompts": self._prompts_id(how.prompt_set, how.prompts),
                "images_per_prompt": how.images_per_prompt,
                "sampler_steps": how.sampler_steps,
                "guidance": how.guidance,
                **self._generator(),
                **looks,
                "micro_batch": self.preset.micro_batch.model_dump(),
            }
        )

    @once
    def classify_spec(self, evaluation: str) -> dict[str, Any]:
        """How generated images are looked at: every classifier of the preset, encoders and readers."""
        preset = self.preset
        return drop_none(
            {
                "split": self.evaluations[evaluation].prompts,
                "at_most": self.evaluations[evaluation].at_most,
                **self._faces_in_images(),
                "classifiers": {name: self.classifier_spec(name) for name in preset.classifiers},
                "encoders": preset.encoders.evaluation.model_dump(),
                "reader": self._faces_used(preset.reader),
                "face_embedding": preset.face_embedding.model_dump() if preset.reader else None,
                "concept_reader": preset.concept_reader and preset.concept_reader.model_dump(),
                "micro_batch": preset.micro_batch.model_dump(),
            }
        )

    @once
    def bias_spec(self, run: str) -> dict[str, Any]:
        """How bias is computed: the attributes each classifier reads, and the run's target per attribute."""
        return {"read": self.read(), "target": self.expanded[run].settings.align}

    @once
    def reference_spec(self, evaluation: str) -> dict[str, Any]:
        """What the real pictures that an evaluation's images are compared with depend on; empty without any."""
        how, preset = self.evaluations[evaluation], self.preset
        if preset.quality is None:
            return {}
        return drop_none(
            {
                **preset.quality.model_dump(),
                "split": how.prompts,
                "at_most": how.at_most,
                "prompts": self._prompts_id(how.prompt_set, how.prompts),
                "images_per_prompt": preset.quality.images_per_prompt or how.images_per_prompt,
                "dino": preset.encoders.evaluation.dino.model_dump(),
                "micro_batch": preset.micro_batch.model_dump(),
            }
        )

    @once
    def quality_spec(self, evaluation: str) -> dict[str, Any]:
        """How image quality is measured: what with, and who reads the classes that the images show."""
        judge = self.evaluations[evaluation].classifier
        return {"reference": self.reference_spec(evaluation), "classifier": judge, "read": self.read()}

    @once
    def reference_id(self, evaluation: str) -> str:
        """Name of a set of real pictures: evaluations and runs that share it are compared with the same."""
        return fingerprint(self.reference_spec(evaluation))[:12]

    @cached_property
    def _asked(self) -> dict[str, list[int]]:
        """The seeds that rows of tables ask for, by run."""
        asked: dict[str, list[int]] = {}
        for table in self.tables.values():
            for row in table.rows:
                asked.setdefault(row.run, []).extend(row.seeds)
        return asked

    def _takes_target(self, run: str) -> bool:
        settings = self.runs[run]
        return METHODS[settings.method].takes_target_with(settings.settings)

    def table_spec(self, table: str) -> dict[str, Any]:
        """A table with its rows: labels, runs, seeds, the classifier bias is read by, the paper's numbers."""
        spec = self.tables[table]
        flags = TAKES_TARGET in spec.columns
        rows = [
            {
                "takes_target": self._takes_target(row.run) if flags else None,
                "run": row.run,
                "seeds": list(row.seeds),
                "evaluation": row.evaluation,
                "classifier": row.classifier or self.evaluations[row.evaluation].classifier,
                "label": row.label,
                "group": row.group,
                "paper": {metric: dict(numbers) for metric, numbers in row.paper.items()},
            }
            for row in spec.rows
        ]
        return drop_none({"title": spec.title, "columns": list(spec.columns), "target": spec.target, "rows": rows})

    def figure_spec(self, figure: str) -> dict[str, Any]:
        """A figure with what it needs to be drawn: seeds, targets, the classifier whose predictions are shown."""
        return figure_spec(self, figure)

    def gradient_study_spec(self, name: str) -> dict[str, Any]:
        """What a study of gradient estimators depends on."""
        world = {"prompts": self._prompts_id(OCCUPATIONS, "validation"), **self._generator()}
        return gradient_study_spec(self.gradient_studies[name], self.preset, world)

    def claims_spec(self, measured: Measured) -> dict[str, Any]:
        """The claims with their checks; those about other than the (run, evaluation) pairs `measured` are undecided."""
        return claims_spec(self.claims, self.runs, self.evaluations, measured, self.gradient_studies)

    def prompt_files(self, run: str) -> list[str]:
        """Files of the prompt sets a run is finetuned on."""
        return [self.preset.prompts[name].file for name in self.runs[run].prompt_sets]

    def prompt_file(self, evaluation: str) -> str:
        """File of an evaluation's prompt set."""
        return self.preset.prompts[self.evaluations[evaluation].prompt_set].file

    @once
    def _adapter_id(self, run: str, seed: int) -> str:
        made_by = self.finetune_spec if self.finetuned(run) else self.fit_spec
        return fingerprint(made_by(run, seed))

    @once
    def _prompts_id(self, prompt_set: str, split: str) -> str:
        return fingerprint(self.prompts[prompt_set][split])[:12]

    def _prompts(self, settings: RunSettings, split: str) -> list[str]:
        return [
            self._prompts_id(name, split) for name in settings.prompt_sets if self.prompts[name].get(split) is not None
        ]


def load_study(raw: Any, root: Path) -> Study:
    """Check a configuration and complete it from its preset.

    Args:
        raw: content of config.yaml, with what the command line overrides.
        root: the repository, with presets/ and resources/.

    Raises:
        ConfigError: with every problem found.
    """
    problems = Problems()
    config = salvage(Config, raw, CONFIG_FILE, problems)
    if config is None:
        raise ConfigError(problems)
    checks.check_seeds(config, problems, CONFIG_FILE)
    checks.check_secrets(raw, problems, CONFIG_FILE)
    preset, preset_file = load_preset(root, config.preset, problems)
    if preset is None:
        raise ConfigError(problems)
    checks.check_secrets(preset.model_dump(mode="json"), problems, preset_file)
    prompts = prompt_splits(root, preset, preset_file, problems)
    expansion = Expansion(config, CONFIG_FILE, preset, preset_file, frozenset(map(str, raw["runs"])), problems)
    runs = expansion.named_runs()
    checks.check_same_meaning(runs, problems, CONFIG_FILE)
    numbers = load_paper_numbers(root, problems)
    tables = TableResolution(expansion, runs, numbers, CONFIG_FILE, problems).tables(config)
    evaluations = _evaluations(config, preset, preset_file, problems)
    for run in runs.values():
        checks.check_run(run, preset, prompts, problems)
    checks.check_references(runs, preset, preset_file, problems)
    checks.check_evaluations(evaluations, preset, prompts, CONFIG_FILE, problems)
    checks.check_tables(config, evaluations, preset, CONFIG_FILE, problems)
    FigureChecks(config, evaluations, runs, preset, CONFIG_FILE, problems).check(expansion.names)
    studies = complete_studies(config, preset, prompts, CONFIG_FILE, problems)
    claims = load_claims(root, runs, config.evaluations, preset, problems)
    if problems.found:
        raise ConfigError(problems)
    return Study(preset, runs, evaluations, tables, config.figures, studies, prompts, claims)


def _evaluations(config: Config, preset: Preset, preset_file: str, problems: Problems) -> dict[str, EvaluationSettings]:
    complete = {}
    for name, entry in config.evaluations.items():
        try:
            complete[name] = EvaluationSettings.model_validate(merge(preset.evaluation, entry))
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                message = f"{detail['loc'][0]} is given neither here nor by {preset_file}"
                problems.add(CONFIG_FILE, ("evaluations", name), message)
    return complete
