"""A run: one way of obtaining a debiased generator. Symbols and values are the paper's where it gives them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from distalign.config.models.base import (
    Count,
    Distribution,
    Model,
    Name,
    NonNegative,
    Positive,
    Seed,
    Share,
    by_attribute,
    partial,
)

Align = Annotated[
    dict[str, dict[str, float]],
    by_attribute(
        "Align",
        "The attributes to align and the distribution each should have.",
        lambda attribute: Annotated[dict[str, float], Distribution(attribute)],
    ),
]
Factors = Annotated[dict[str, float], by_attribute("Factors", "One factor per attribute.", lambda attribute: Share)]
Part = Literal["text_encoder", "unet", "prompt_prefix"]
OCCUPATIONS = "occupations"  # the prompt set that is used unless said otherwise


class Gradient(Model):
    """How the gradient with respect to a generated image reaches the adapter (paper, section 4.2)."""

    weights: Literal["adjusted", "released", "unstandardised", "exact"] = Field(
        description="Weight of each noise prediction: adjusted (equal, eq. 10), released (the authors' code), "
        "unstandardised (the sampler's own coefficients, detached inputs) or exact (the whole chain, eq. 9).",
    )
    damping: Share | None = Field(
        None,
        description="Only for exact: factor on the coupled term, from 0 (as unstandardised) to 1 (exact, the default).",
    )
    steps: Count | None = Field(
        None,
        description="Take the gradient at this many steps drawn at random, those of large weight more often, scaled to "
        "stay unbiased; unset: at all.",
    )
    choice: Literal["random", "even"] | None = Field(
        None,
        description="Which steps these are. random: as above; even: equally spaced from a random first one, all scaled "
        "alike (with weights: unstandardised this is DRTune, which does not scale); unset: random.",
    )
    last: Count | None = Field(
        None,
        description="Only for exact: the chain through this many last steps alone, what goes in held fixed (DRaFT-K); "
        "unset: through all.",
    )
    renoise: Count | None = Field(
        None,
        description="Only for exact with last: 1: this many further images, each the final latent noised anew to the "
        "last timestep and denoised once; the gradient is the mean over these and the sampled one (DRaFT-LV).",
    )
    truncate: Literal["random"] | None = Field(
        None,
        description="Only for exact: the chain from a step on that is drawn anew at every iteration, uniformly "
        "(AlignProp); unset: through all.",
    )
    keep_graph: Literal["auto"] | bool = Field(
        "auto",
        description="Keep each step's graph from the rollout instead of running it again: faster, more memory. "
        "auto: when it fits. Changes nothing in the result.",
    )


class Loss(Model):
    """Weights of the image and face losses beside the alignment loss of weight 1 (paper, eqs. 6 to 8)."""

    image: NonNegative = Field(
        description="λ_img,1: weight of keeping the image close to the original in CLIP and DINO."
    )
    agree: Factors = Field(
        description="λ_img,2 / λ_img,1 per attribute: factor on the image loss where the target class differs from "
        "the original's; of several such attributes the smallest counts.",
    )
    face_region: Factors = Field(
        description="λ_img,3 / λ_img,2 per attribute: further factor inside the face, under the same rule."
    )
    lost_face: Positive | None = Field(
        None,
        description="Factor on the image loss of an image in which no face is found although the original has one: "
        "only this loss can bring it back; unset: 1 (paper).",
    )
    preserve: NonNegative | None = Field(
        None,
        description="Weight of a cross-entropy that keeps the attributes which the classifier reads, but the run does "
        "not align, as in the original image; unset: 0 (paper).",
    )
    face: NonNegative = Field(description="λ_face: weight of keeping the face close to a real one.")
    face_confidence: Share = Field(
        description="From this class probability on, and where the target is the original's class, the real face is "
        "the original's own; else the nearest of the bank.",
    )


MethodValue = bool | int | float | str


class RunSettings(Model):
    """What a run is. The preset supplies what config.yaml does not say."""

    method: Name = Field(
        description="original (nothing is changed), adjusted_dft (the paper), or another of docs/methods.md."
    )
    align: Align = Field(
        default_factory=dict,
        description="Target distribution per attribute: uniform, or a share per class. Replaces an inherited one.",
    )
    settings: dict[Name, MethodValue] = Field(
        default_factory=dict,
        description="The method's own settings, by its section of docs/methods.md. Only settings, align, search, "
        "prompt_sets, classifier and validation_images have a meaning for methods other than adjusted_dft.",
    )
    search: dict[Name, Annotated[list[MethodValue], Field(min_length=2)]] = Field(
        default_factory=dict,
        description="Values of the method's settings, instead of one in `settings`, to choose from on the validation "
        "prompts: each combination is fitted, makes validation_images per prompt, and the one nearest to the target is "
        "taken.",
    )
    train: list[Part] = Field(
        ["text_encoder"],
        min_length=1,
        description="What is trained: LoRA on text_encoder and/or unet, or a prompt_prefix alone.",
    )
    rank: Count | None = Field(None, description="Rank of the LoRA matrices.")
    prefix_tokens: Count | None = Field(None, description="Number of learned tokens put before the prompt.")
    gradient: Gradient = Field(description="The gradient estimator.")
    images_per_step: Count = Field(description="N: images of one iteration, over all its prompts and processes.")
    prompts_per_step: Count = Field(description="Prompts of one iteration; N is divided evenly among them (paper: 1).")
    iterations: Count = Field(description="Length of training.")
    duration: Share | None = Field(
        None, description="Share of the iterations that this run takes, for rows that may cost less; unset: all."
    )
    sampler_steps: list[Count] = Field(
        min_length=1, description="Numbers of sampler steps in training; each iteration draws one uniformly."
    )
    guidance: Positive = Field(description="Classifier-free guidance scale in training.")
    learning_rate: Positive = Field(description="Learning rate of AdamW; its first value where it decays.")
    learning_rate_decay: Literal["cosine"] | None = Field(
        None, description="cosine: half a cosine from learning_rate to 0 over the iterations; unset: constant (paper)."
    )
    max_gradient_norm: Positive | None = Field(
        None,
        description="A longer gradient of the adapter is shortened to this norm, so that a few images cannot turn an "
        "update, nor slow AdamW down for long after; unset: never (paper).",
    )
    weight_decay: NonNegative = Field(description="Weight decay of AdamW.")
    ema_decay: Share = Field(description="Decay of the moving average of the adapter, which is what is saved.")
    confidence: Share = Field(
        description="C: an image whose most probable target class has less probability than this has no target."
    )
    targets: Literal["transport", "fixed", "batch_mean"] | None = Field(
        None,
        description="Target classes by optimal transport in expectation over draws of the target distribution "
        "(transport: eq. 5), or to one fixed set with its shares (fixed: half of the faces each for two classes). "
        "batch_mean: no classes; the alignment loss is, per prompt and attribute, KL(mean of the faces' class "
        "probabilities || target distribution), the image loss counts in full and the face loss not at all. "
        "Unset: transport.",
    )
    loss: Loss = Field(description="Weights of the image and face losses.")
    classifier: Name = Field("loss", description="The preset's classifier inside the losses.")
    prompt_sets: list[Name] = Field(
        [OCCUPATIONS],
        min_length=1,
        description="The preset's prompt sets to finetune on; they are visited equally often, whatever their sizes.",
    )
    noise_period: Count | None = Field(
        None,
        description="After this many iterations the same prompts and noises return, so that the originals are a finite "
        "set; unset: never.",
    )
    checkpoint_every: Count = Field(description="Iterations between checkpoints to resume from. Changes no result.")
    validate_every: Count | None = Field(
        None, description="Iterations between measurements on the validation prompts; unset: none."
    )
    validation_images: Count = Field(description="Images per validation prompt of such a measurement.")


Seeds = Annotated[list[Seed], Field(min_length=1)]

_run_entry = partial(
    RunSettings,
    "Run",
    "One run: any of the settings, on top of another run's (`from`) and the preset's.",
    from_=(Name | None, Field(None, alias="from", description="Run whose settings this one starts from.")),
    seeds=(Seeds | None, Field(None, description="Repetitions of this run, instead of the config's seeds.")),
)
RunEntry = Annotated[dict[str, Any], _run_entry]
RunDefaults = Annotated[dict[str, Any], partial(RunSettings, "RunDefaults", "Some of the settings of a run.")]
