"""The methods a run may name. A new method is its file in `distalign.methods` and an entry here."""

from typing import Annotated, Literal

from pydantic import Field

from distalign.config.models.base import Count, NonNegative, Positive, Share
from distalign.config.models.method import Method, Setting

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
        "choice. Rows with other estimators (`gradient`) are the other direct finetuning methods: "
        "[their equations](method.md#the-gradient).",
        stage="adapter",
        equation="minimise L_align + λ_img L_img + λ_face L_face over an adapter (eqs. 5 to 10)",
        cost="1",
        fit="finetuning",
        concepts="to fit",
        takes_target=True,
        finetuned=True,
        measures=True,
    ),
    "released": Method(
        title="Ours, as released",
        reference="Shen et al. 2024, arXiv 2311.07604",
        summary="An adapter that the paper's authors trained and released, read from their file instead of trained: "
        "LoRA on the text encoder (its MLP included), on the U-Net or both, or a prompt prefix. `align` says what it "
        "was trained for. Where the files come from, and what is in them: [the authors' files](released.md).",
        stage="adapter",
        equation="W → W + B A in the layers of the file; or its vectors before every prompt",
        cost="1",
        fit="a conversion",
        concepts="to fit",
        takes_target=True,
        converted=True,
        faithful="sampling is ours, so noises are; the authors encode the empty prompt beside a prefix without a mask.",
        settings={
            "archive": Setting(
                None,
                str,
                "The zip file with the checkpoint, or the folder it was unpacked to, relative to the repository.",
                required=True,
            ),
            "folder": Setting(
                None, str, "The folder of the exported checkpoint in it; all adapters there are used.", required=True
            ),
            "ema": Setting(True, bool, "The moving averages of the weights, or the weights.", "authors"),
        },
    ),
    "debiasvl": Method(
        title="debiasVL",
        reference="Chuang et al. 2023, arXiv 2302.00070",
        summary="A fixed linear map of the text embeddings that shrinks the directions in which prompts naming "
        "different classes differ. It removes information; what the U-Net then paints is its own default.",
        stage="text embedding",
        equation="E → E Pᵀ, P = (I + λ M)⁻¹, M = 1/|S| Σ (z_a − z_b)(z_a − z_b)ᵀ",
        cost="1",
        fit="closed form",
        concepts="to fit",
        faithful="pairs are the run's own prompts with the class before the concept, not 'A photo of a male doctor.'; "
        "for more than two cells (race, or several attributes) all pairs of them, which the authors do not describe.",
        settings={
            "strength": Setting(500.0, Positive, "λ.", "authors' code"),
            "concepts": Setting(80, Count, "Training concepts the pairs are made of, evenly spread.", "authors' code"),
        },
    ),
    "ethical_intervention": Method(
        title="Ethical Interventions",
        reference="Bansal et al. 2022, arXiv 2210.15230",
        summary="A sentence after the prompt asks for everybody; `irrelevant` is the authors' placebo.",
        stage="prompt",
        equation="c → c 'if all individuals can be a CONCEPT irrespective of their ATTRIBUTES'",
        cost="1",
        fit="none",
        concepts="to apply",
        faithful="the whole concept is named, where the authors' code takes its last word; race is called race, where "
        "they say skin color (`race_words`). CLIP-T is against the prompt without the sentence.",
        settings={
            "text": Setting(
                "intervention",
                Literal["intervention", "irrelevant"],
                "The sentence, or 'if honesty is the best policy'.",
                "authors' code",
            ),
            "race_words": Setting(
                "race",
                Literal["race", "skin color"],
                "What the sentence calls race.",
                "ours; authors' code: skin color",
            ),
        },
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
    "concept_algebra": Method(
        title="Concept Algebra",
        reference="Wang et al. 2023, arXiv 2302.03693",
        summary="The part of the score along the attribute, spanned at each step by the scores of texts that name the "
        "classes, is replaced by that of a target text: a person of no said class (`target: neutral`), or the class "
        "drawn for the image (`sampled`). Only the latter takes any target distribution and has a class per image.",
        stage="score",
        equation="ε_c ← ε_c + γ Q Qᵀ (ε_target − ε_c), Q: leading left singular vectors of the cells' scores, centred\n"
        "two classes, γ = 1: ε_c ← ε_c − ⟨ε_c − ε_target, u⟩ u, u = (ε_− − ε_+) / ‖ε_− − ε_+‖",
        cost="(n + 3)/2 for n cells: gender 2.5; with `sampled` (n + 2)/2",
        fit="none",
        takes_target=True,
        target_needs={"target": "sampled"},
        assigns=True,
        faithful="norms and inner products are of each image by itself and in float64, where the authors' code takes "
        "them over the whole batch; several attributes together span one subspace; a drawn target is ours; texts say "
        "'a male person' where UCE's comparison says 'a man'.",
        settings={
            "target": Setting(
                "neutral",
                Literal["neutral", "sampled"],
                "neutral: the text of a person, which takes no shares; sampled: the text of the class drawn.",
                "UCE's comparison",
            ),
            "concept_prompt": Setting(
                "{a} {concept}",
                Annotated[str, Field(pattern=r"^[^{}]*(\{a\}[^{}]*)?\{concept\}[^{}]*$")],
                "The texts: {concept} is a person, or one with the words of a cell, {a} its article.",
                "UCE's comparison",
            ),
            "scale": Setting(1.0, NonNegative, "γ.", "authors' code"),
            "threshold": Setting(
                0.9, Share, "More than this share of the classes' variance is in Q; no matter for two.", "authors' code"
            ),
            "until": Setting(
                1.0,
                Share,
                "Acts only at timesteps up to this share of them: below 1 the first steps are plain.",
                "authors' code",
            ),
            "assignment": ASSIGNMENT,
        },
    ),
    "fair_diffusion": Method(
        title="Fair Diffusion",
        reference="Friedrich et al. 2023, arXiv 2302.10893; semantic guidance: Brack et al. 2023, arXiv 2301.12247",
        summary="A class is drawn for each image, and guidance added: towards a text of this class and away from the "
        "others. Images of concepts that are not in its table are left as they are.",
        stage="score",
        equation="ε = ε_∅ + w (ε_c − ε_∅) + Δ, Δ = Σ_i δ_i + s_m ν, ν ← β ν + (1 − β) Δ\n"
        "δ_i = ± s (ε_{e_i} − ε_∅), of each channel the largest entries only",
        cost="2 where it edits, else 1; with `remove: each` 1 + half the number of classes: gender 2, race 3, both 4",
        fit="a table of concepts",
        concepts="to apply",
        takes_target=True,
        assigns=True,
        faithful="for more than two cells, which the authors do not have, the others are removed by one text, a list; "
        "the edit of each image is its own; without a face the noise is not drawn again; the warm-up is a share of the "
        "steps.",
        settings={
            "lookup": Setting(
                "known",
                Literal["known", "all"],
                "known: only prompts of the training concepts are edited; all: every prompt.",
                "authors' code",
            ),
            "remove": Setting(
                "together",
                Literal["together", "each"],
                "together: two edits, the cell and a list of those that share no class with it; each: per attribute "
                "an edit for every class.",
            ),
            "scale": Setting(4.0, NonNegative, "s.", "authors' code"),
            "threshold": Setting(
                0.95, Share, "The quantile over space an entry's size must reach to be kept.", "authors' code"
            ),
            "warmup": Setting(
                0.1, Share, "Share of the steps before edits are added; momentum gathers.", "authors' code: 5 of 50"
            ),
            "momentum": Setting(0.5, NonNegative, "s_m.", "authors' code"),
            "beta": Setting(0.6, Share, "β.", "authors' code"),
            "assignment": ASSIGNMENT,
        },
    ),
    "interpret_diffusion": Method(
        title="InterpretDiffusion",
        reference="Li et al. 2024, CVPR, arXiv 2311.17216",
        summary="A vector per class, added behind the U-Net's middle block. It is learned with the denoising loss from "
        "the model's own pictures of the class, under a prompt that does not say the class.",
        stage="activations",
        equation="ε_c: h → h + λ Σ_a c_{y_a}, y ~ target, h the middle block's output\n"
        "c_y = argmin_c E ‖ε(z_t, t, neutral; h + c) − ε‖² over pictures z of class y",
        cost="1",
        fit="1000 pictures and 2500 steps per class",
        takes_target=True,
        assigns=True,
        settings={
            "assignment": ASSIGNMENT,
            "images": Setting(1000, Count, "Pictures of each class to learn from.", "authors' code"),
            "steps": Setting(2500, Count, "Training steps per class; 20 epochs.", "authors' code"),
            "batch_size": Setting(8, Count, "Pictures per training step.", "authors' code"),
            "learning_rate": Setting(0.1, Positive, "Adam's.", "authors' code"),
            "scale": Setting(1.0, NonNegative, "Strength λ while sampling.", "authors' code", fitted=False),
        },
        faithful="pictures are of the run's own template with `person` (`a woman` and `a person` there), made with the "
        "run's sampler, and stay latents, without decoding and encoding; the vector starts at zero, not at random. "
        "Images of a batch have vectors of their own (there, one image at a time).",
    ),
    "equisteer": Method(
        title="EquiSteer",
        reference="Gaintseva et al. 2026, ECCV, arXiv 2607.01147",
        summary="Without training: at every position of every cross-attention, what the output says of the attribute "
        "is taken out and the drawn class put in, as strong as prompts that name the class say it.",
        stage="activations",
        equation="ε_c: x → ‖x‖ x' / ‖x'‖, x' = x − P_a x + λ α_y s_y, y ~ target, x cross-attention's output\n"
        "s_y ∝ E[x | y] − E[x], α_y = E[max over positions ⟨x, s_y⟩ | y], for each layer and step",
        cost="1",
        fit="two images per concept and class",
        concepts="to fit",
        takes_target=True,
        assigns=True,
        settings={
            "assignment": ASSIGNMENT,
            "concepts": Setting(50, Count, "Prompts to fit on, spread evenly over those there are."),
            "magnitude": Setting(
                "largest",
                Literal["largest", "mean"],
                "What of the positions counts for α: the largest projection or their mean.",
                "authors' code",
            ),
            "scale": Setting(1.0, NonNegative, "Strength λ of what is put in.", "authors' code", fitted=False),
            "gate": Setting(True, bool, "Leave prompts alone that name a class before their concept.", "authors' code"),
        },
        faithful="directions come from the run's own prompts, each with every class said (126 or 210 scenes with "
        "people there), and all are a class's mean minus that of all classes (there so for gender; other attributes "
        "against prompts without a class). Where the number of steps is not that of the fitting, the nearest step's "
        "are taken. The gate reads the words; theirs compares the response at one layer with a threshold. α is what "
        "their code calls the paper's; by default that code puts in the gate's threshold instead, and for Stable "
        "Diffusion 1.5 with several attributes only in the first 20 steps. Written from the authors' description and "
        "code; the equations of the paper itself could not be read.",
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
