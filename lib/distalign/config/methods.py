"""The methods a run may name. A new method is its file in `distalign.methods` and an entry here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, create_model

from distalign.config.models.base import Count, Model, NonNegative, Positive, Share

Stage = Literal["prompt", "text embedding", "weights", "activations", "score", "latents", "adapter"]
Concepts = Literal["none", "to fit", "to apply"]


@dataclass(frozen=True)
class Setting:
    """One setting of a method: its default, its type, what it is. `source`: where the default comes from."""

    default: Any
    kind: Any
    description: str
    source: str = ""


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
        finetuned: by the trainer of `distalign.alignment`, with all its settings, instead of those below.
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
    finetuned: bool = False
    assigns: bool = False
    measures: bool = False
    looks: bool = False
    faithful: str = ""
    version: int = 1
    settings: Mapping[str, Setting] = field(default_factory=dict)

    def model(self) -> type[Model]:
        """The model that checks `settings` of a run and fills in the defaults."""
        fields: dict[str, Any] = {
            name: (it.kind, Field(it.default, description=it.description)) for name, it in self.settings.items()
        }
        return create_model("MethodSettings", __base__=Model, __doc__=self.summary, **fields)


UNCHANGED = "original"  # the method that has no adapter, no settings and no training
ASSIGNMENT = Setting(
    "quota",
    Literal["quota", "iid"],
    "How an image gets its class: quota (each prompt's images have the target's shares exactly) or iid (drawn).",
)

METHODS: dict[str, Method] = {
    UNCHANGED: Method(
        title="Original",
        reference="",
        summary="The model as it is.",
        stage="weights",
        equation="ε = ε_∅ + w (ε_c − ε_∅)",
        cost="1",
        fit="none",
    ),
    "adjusted_dft": Method(
        title="Ours",
        reference="Shen et al. 2024, arXiv 2311.07604",
        summary="The paper: finetuning with the distributional alignment loss and a gradient estimator of the run's "
        "choice. Rows with other estimators are the direct finetuning methods: `gradient`.",
        stage="adapter",
        equation="minimise L_align + λ_img L_img + λ_face L_face over an adapter (eqs. 5 to 10)",
        cost="1",
        fit="finetuning",
        concepts="to fit",
        takes_target=True,
        finetuned=True,
        measures=True,
    ),
    "explicit_prompt": Method(
        title="Explicit prompt",
        reference="",
        summary="An oracle: the class is written into the prompt, drawn for each image. What is left is what the model "
        "does not obey and the classifier does not read: the floor of the whole benchmark.",
        stage="prompt",
        equation="c → words(y) c, y ~ target",
        cost="1",
        fit="none",
        concepts="to apply",
        takes_target=True,
        assigns=True,
        settings={"assignment": ASSIGNMENT},
    ),
    "doodl": Method(
        title="DOODL",
        reference="Wallace et al. 2023, arXiv 2303.13703",
        summary="Each image's starting latents are optimised until the classifier inside the loss sees in its face the "
        "class drawn for it.",
        stage="latents",
        equation="v ← μ v − η √d g / ‖g‖, g = ∂ CE(classifier(face(image(z_T))), y) / ∂z_T, y ~ target\n"
        "z_T ← (z_T + v) ‖z‖ / ‖z_T + v‖, with z the noise it began with, of d numbers",
        cost="1 + 2 × `steps`, half of these with a backward pass each; in time 1 + about 4 × `steps`",
        fit="none",
        takes_target=True,
        assigns=True,
        looks=True,
        faithful="the gradient goes through our sampler, exactly, by an adjoint sweep over stored latents, not through "
        "EDICT's coupled inversion, whose images would not be those of the other rows; each image's is scaled to the "
        "same length, where the authors scale the loss by hand and clip each element to 0.001; the loss sees the face "
        "once, not 16 random crops of the image, and no noise is added to the latents. An image without a face is left "
        "as it is, also where an update lost the face.",
        settings={
            "steps": Setting(50, Count, "Updates of the latents.", "authors' code"),
            "learning_rate": Setting(
                0.001, Positive, "η: root mean square of an update's elements, before momentum; the noise's is 1."
            ),
            "momentum": Setting(0.9, Share, "μ: share of the update before that is repeated.", "authors' code"),
            "renormalise": Setting(
                True, bool, "Whether each image's latents keep the norm of the noise they began with.", "authors' code"
            ),
            "assignment": ASSIGNMENT,
        },
    ),
}


def is_finetuned(method: str) -> bool:
    """Whether a method is finetuned by the trainer; an unknown one counts as such."""
    return method not in METHODS or METHODS[method].finetuned


__all__ = [
    "ASSIGNMENT",
    "METHODS",
    "UNCHANGED",
    "Count",
    "Method",
    "NonNegative",
    "Positive",
    "Setting",
    "Share",
    "is_finetuned",
]
