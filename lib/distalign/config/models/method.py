"""What is known of a method, and its settings: what the entries of `distalign.config.methods` are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, create_model

from distalign.config.models.base import Model

Stage = Literal["prompt", "text embedding", "weights", "activations", "score", "latents", "adapter"]
Concepts = Literal["none", "to fit", "to apply"]


@dataclass(frozen=True)
class Setting:
    """One setting of a method: its default, its type, what it is.

    `source`: where the default comes from. `fitted`: whether fitting depends on it; where not, a search over it fits
    once. `required`: there is no default, a run has to give it.
    """

    default: Any
    kind: Any
    description: str
    source: str = ""
    fitted: bool = True
    required: bool = False


@dataclass(frozen=True)
class Method:
    """What is known of a method without running it.

    Attributes:
        title: as tables call it.
        reference: authors, year, arXiv number.
        summary: one sentence.
        stage: where in the sampling it acts.
        equation: what it computes, in a line or two.
        cost: U-Net evaluations per image, relative to plain sampling; a formula in words.
        fit: what fitting takes.
        concepts: whether it must know the concepts of the prompts it is applied to, or some to be fitted on.
        takes_target: whether any target distribution can be asked for.
        target_needs: the settings without which that is not so, nor `assigns`.
        finetuned: by the trainer of `distalign.alignment`, with all its settings, instead of those below.
        converted: its adapter comes out of a file (`distalign.released`) and is neither trained nor fitted.
        assigns: whether it draws an attribute for each image.
        measures: whether fitting looks at images with the classifier inside the loss.
        looks: whether sampling does.
        faithful: where our form is not the authors': why.
        version: to raise when the method's results change.
    """

    title: str
    reference: str
    summary: str
    stage: Stage
    equation: str
    cost: str
    fit: str
    concepts: Concepts = "none"
    takes_target: bool = False
    target_needs: Mapping[str, Any] = field(default_factory=dict)
    finetuned: bool = False
    converted: bool = False
    assigns: bool = False
    measures: bool = False
    looks: bool = False
    faithful: str = ""
    version: int = 1
    settings: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def adapter(self) -> bool:
        """Whether it leaves an adapter as `distalign.diffusion.adapters` writes and loads it."""
        return self.finetuned or self.converted

    def takes_target_with(self, settings: Mapping[str, Any]) -> bool:
        """Whether any target distribution can be asked for with these settings; those left out have their defaults."""
        return self.takes_target and all(
            settings.get(name, self.settings[name].default) == value for name, value in self.target_needs.items()
        )

    def model(self) -> type[Model]:
        """The model that checks `settings` of a run and fills in the defaults."""
        fields: dict[str, Any] = {
            name: (it.kind, Field(it.default, description=it.description)) for name, it in self.settings.items()
        }
        return create_model("MethodSettings", __base__=Model, __doc__=self.summary, **fields)
