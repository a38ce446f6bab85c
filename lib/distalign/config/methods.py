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
EDITED = {  # which concepts a method of named concepts edits
    "fit_on": Setting(
        "train",
        Literal["train", "test"],
        "The split whose concepts are edited; test: an oracle, told what it will be asked.",
    ),
    "concepts": Setting(None, Count | None, "How many of its prompts are edited, evenly spread over it; unset: all."),
}

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
    "uce": Method(
        title="UCE",
        reference="Gandikota et al. 2023, arXiv 2308.14761",
        summary="Unified concept editing: a closed-form edit of the keys and values of named concepts. Each gets as "
        "much of every class as rounds of images say, until the images have the target's shares.",
        stage="weights",
        equation="W' = argmin s_e Σ |W'c - v*|² + s_p Σ_kept |W'c - W c|² + λ |W' - W|²,  "
        "v* = W c + Σ_a w_a |W c| W c_a / |W c_a|,\nw_a ← w_a + step (desired_a - measured_a)",
        cost="1",
        fit="up to `rounds` times images of each concept, then < 1 s",
        concepts="to apply",
        takes_target=True,
        measures=True,
        faithful="measured with the classifier inside the loss instead of zero-shot CLIP. Every edit starts from the "
        "model's own weights and w adds up (the 2023 script edits edited weights; the 2025 one changes cached values "
        "in place). c_a is the concept's own token in the prompt that says the class (`a female doctor`) instead of "
        "the class's word by itself: so several attributes can be said. |W c| is per token. What is kept is the empty "
        "prompt without padding, as 2023's edit does without a list, not a list of professions. A concept within the "
        "tolerance is not moved, but looked at again in the next round. One phrasing per concept, the run's own.",
        settings={
            **EDITED,
            "rounds": Setting(30, Count, "Most rounds of images.", "authors' code"),
            "step": Setting(0.1, Positive, "How far a round moves w, per unit of a missing share.", "authors' code"),
            "tokens": Setting(
                "last",
                Literal["last", "rest"],
                "Of a prompt are edited: the concept's last token, or that and all after it, with the end.",
                "authors' code of 2025; rest: of 2023, there with padding",
            ),
            "erase_scale": Setting(1.0, Positive, "Weight s_e of edited tokens.", "authors' code"),
            "preserve_scale": Setting(
                0.1, NonNegative, "Weight s_p of the empty prompt's tokens.", "authors' code of 2023; 1 in 2025"
            ),
            "strength": Setting(0.5, Positive, "λ: the larger, the less the weights change.", "authors' code"),
            "tolerance": Setting(
                0.05, NonNegative, "A concept none of whose shares is as far from the target stays.", "authors' code"
            ),
        },
    ),
    "time_edit": Method(
        title="TIME",
        reference="Orgad et al. 2023, arXiv 2303.08084",
        summary="Editing implicit assumptions: tokens of a prompt get the keys and values they have in the prompt that "
        "says what the model shows too rarely. The target says where to, λ how far: search it.",
        stage="weights",
        equation="W' = (λ W + Σ v* cᵀ)(λ I + Σ c cᵀ)⁻¹,  v* = W Σ_a u_a c_a / Σ_a u_a,  "
        "u_a = max(target_a - measured_a, 0)",
        cost="1",
        fit="images of each concept once, then < 1 s",
        concepts="to apply",
        takes_target=True,
        measures=True,
        faithful="all concepts in one edit with one λ, where the paper tunes one for each; destinations from a "
        "measurement instead of a list; the weighted mean is ours, with two classes it is the paper's counter-"
        "stereotype. Padding is not edited, so that λ means the same under every padding; in the authors' code it is, "
        "up to 77 tokens. No further phrasings of a prompt.",
        settings={
            **EDITED,
            "strength": Setting(0.1, Positive, "λ: the larger, the less the weights change.", "authors' code"),
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
