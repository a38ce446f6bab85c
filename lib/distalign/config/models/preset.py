"""A preset: the world a run lives in. Diffusion model, face data, classifiers, encoders, prompts, budgets."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, NonNegativeInt, model_validator
from pydantic.json_schema import GetJsonSchemaHandler, JsonSchemaValue, SkipJsonSchema
from pydantic_core import CoreSchema, core_schema

from distalign.config.attributes import ATTRIBUTES
from distalign.config.models.base import (
    Count,
    Model,
    Name,
    NonNegative,
    Positive,
    Seed,
    Share,
    by_attribute,
    by_name,
    partial,
)
from distalign.config.models.faces import Faces
from distalign.config.models.gradient_study import GradientStudyBudget
from distalign.config.models.run import OCCUPATIONS, Part, RunDefaults
from distalign.config.models.weights import FaceWeights, InitialWeights, Weights

DatasetOf = Annotated[
    dict[str, str],
    by_attribute("DatasetOf", "The face data set that labels each attribute.", lambda attribute: Name),
]


class Prompts(Model):
    """A prompt set, with some of the splits train, validation and test. Groups of the first take turns in training."""

    file: str = Field(description="JSON file, relative to the repository.")


class Detector(Model):
    """MTCNN face detection."""

    min_face: Count = Field(description="Smallest face looked for, in pixels after scaling.")
    scale: Positive = Field(description="Images are enlarged by this factor before detection.")
    thresholds: tuple[Share, Share, Share] = Field((0.6, 0.7, 0.8), description="Scores the three networks ask for.")


class Chip(Model):
    """The face crop classifiers see."""

    size: Count = Field(description="Side in pixels.")
    expand: Positive = Field(description="Side of the crop over the longer side of the detected box.")


class Classifier(Model):
    """A network that reads perceived attributes from a face crop, with one head per attribute."""

    weights: Weights | None = Field(None, description="Trained weights; unset: trained here.")
    labels: DatasetOf = Field(min_length=1, description="The attributes it reads, and the data set that labels each.")
    architecture: Literal["convnet", "resnet_small", "mobilenet_v3_large"] = Field(description="The network.")
    initial: InitialWeights | None = Field(
        None, description="Weights that training starts from, for mobilenet_v3_large; unset: random ones."
    )
    epochs: Count = Field(description="Passes over the training split.")
    batch_size: Count = Field(description="Faces per step.")
    learning_rate: Positive = Field(description="Peak learning rate of AdamW.")
    weight_decay: NonNegative = Field(0.01, description="Weight decay of AdamW.")
    label_smoothing: Share = Field(0.0, description="Share of the label spread over all classes.")
    reconstruct: bool = Field(
        False,
        description="Also train on faces encoded and decoded by the diffusion model's VAE, as generated ones are.",
    )
    seed: Seed = Field(0, description="Seed of initialisation, order and augmentation.")

    @model_validator(mode="after")
    def _initial_fits(self) -> "Classifier":
        if self.initial is not None and self.architecture != "mobilenet_v3_large":
            raise ValueError(f"initial is for mobilenet_v3_large; {self.architecture} starts from random weights")
        return self


class Encoder(Model):
    """An image (and text) encoder."""

    weights: Weights = Field(description="Where it comes from.")
    antialias: bool = Field(False, description="Antialias when resizing images for it (the released code does not).")


class Encoders(Model):
    """The two encoders of image similarity."""

    clip: Encoder = Field(description="CLIP, through open_clip.")
    dino: Encoder = Field(description="DINOv2, through transformers.")


class EncoderRoles(Model):
    """Encoders inside the image loss, and the ones similarity is reported with."""

    training: Encoders = Field(description="Inside the image loss.")
    evaluation: Encoders = Field(description="For clip_t, clip_i and dino in tables.")


class Bank(Model):
    """Real faces the face loss pulls towards: embedded here, or a bank that is there already."""

    faces: Name | None = Field(None, description="Data set whose training split fills the bank.")
    images: Count | None = Field(None, description="At most this many; unset: all.")
    path: str | None = Field(
        None, description="Instead of faces: a bank.safetensors, relative to the repository (released.md)."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> "Bank":
        if (self.faces is None) == (self.path is None):
            raise ValueError("needs either faces or path")
        return self


class Reader(Model):
    """A third opinion on attributes: the labelled faces that are nearest in the space of the face embedding."""

    faces: Name = Field(description="Data set of the labelled faces.")
    neighbours: Count = Field(description="How many nearest faces vote.")


class Quality(Model):
    """Real pictures that all images of an evaluation are compared with: for kid and fd_dino."""

    source: Literal["rendered", "directory"] = Field(
        description="rendered (portraits of the evaluation's prompts by the mini world, every combination of perceived "
        "classes equally often; they count by the mix of classes the images show) or directory (photographs of yours)."
    )
    images_per_prompt: Count | None = Field(
        None,
        description="Real pictures per prompt, and as many others for the floor; unset: as many as the evaluation "
        "generates. To count by classes, rendered ones need two of each combination: 32.",
    )
    path: str | None = Field(None, description="For directory: the folder, relative to the repository.")
    size: Count | None = Field(
        None,
        description="For directory: side of the generated images in pixels, which the square in the middle of each "
        "photograph is brought to.",
    )
    seed: Seed = Field(0, description="Other seeds render other people, or draw other photographs.")

    @model_validator(mode="after")
    def _complete(self) -> "Quality":
        missing = [key for key in ("path", "size") if self.source == "directory" and getattr(self, key) is None]
        if missing:
            raise ValueError(f"source directory also needs {' and '.join(missing)}")
        return self


Size = Annotated[Count | Literal["auto"], Field(union_mode="left_to_right")]


class MicroBatch(Model):
    """Images in flight at once: bounds memory, changes no result beyond rounding.

    auto: as many as the GPU's memory holds, found by trying, remembered in batch_sizes.json below results/{preset}/; on
    a CPU a few.
    """

    sample: Size = Field(description="In sampling and everything without gradient.")
    gradient: Size = Field(description="In forward and backward passes of the U-Net.")
    decode: Size | None = Field(None, description="In the decoder without gradient; unset: as sample.")
    loss: Size | None = Field(None, description="In decoder and losses with gradient; unset: as gradient.")


class _Sizes:
    """Annotation for MicroBatch: `auto` is short for every size."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.expand, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"const": "auto"}, handler(schema)]}

    @staticmethod
    def expand(value: Any) -> Any:
        """`auto` in full; anything else as it is."""
        return {"sample": "auto", "gradient": "auto"} if value == "auto" else value


# The rules whose needs depend on the world; the others need little in every one.
RULES = (
    "make_faces", "train_classifier", "build_bank", "build_reader", "compute_originals", "finetune", "fit_method",
    "convert_adapter", "generate_images", "classify_images", "compute_bias", "make_reference", "compute_quality",
    "train_early_backbone", "study_gradients", "pretrain_stage", "pretrain_classifier",
)  # fmt: skip


class Needs(Model):
    """What one job of a rule needs."""

    mem_mb: Count | None = Field(None, description="Main memory in MB; unset: what stands in the rule.")
    runtime: Count | None = Field(None, description="Time limit in minutes; unset: what stands in the rule.")


NeedsByRule = Annotated[
    dict[str, dict[str, int]],
    by_name(RULES, "NeedsByRule", "The needs of each rule's jobs.", lambda rule: Needs),
]


class Job(Model):
    """What one torch job asks of the machine or the cluster."""

    threads: Count = Field(8, description="CPU threads; at most as many as Snakemake may use.")
    gpu: NonNegativeInt = Field(
        1, description="GPUs of a job that renders or looks at images. 0: none, as many jobs side by side as fit."
    )
    needs: NeedsByRule = Field(
        default_factory=dict,
        description="Memory and minutes by rule, where they differ from what stands in the rule: that suits Stable "
        "Diffusion 1.5.",
    )


class EvaluationSettings(Model):
    """What is generated and how it is judged."""

    prompt_set: Name = Field(OCCUPATIONS, description="The preset's prompt set.")
    prompts: Literal["train", "validation", "test"] = Field("test", description="Split of the prompt set.")
    at_most: Count | None = Field(None, description="Only so many prompts, evenly spread over the split; unset: all.")
    images_per_prompt: Count = Field(description="Images per prompt.")
    sampler_steps: Count = Field(description="Number of sampler steps.")
    guidance: Positive = Field(description="Classifier-free guidance scale.")
    classifier: Name = Field("evaluation", description="The preset's classifier that bias is measured by.")


def _joined(words: str, order: Sequence[str]) -> AfterValidator:
    """Validator of a key that joins some of `order`, in that order."""

    def check(key: str) -> str:
        names = key.split("+")
        if names != [name for name in order if name in names]:
            raise ValueError(f"should join {words} in the order {'+'.join(order)}")
        return key

    return AfterValidator(check)


AttributeSet = Annotated[str, _joined("attributes", list(ATTRIBUTES))]
PartSet = Annotated[str, _joined("parts", get_args(Part))]
EvaluationEntry = Annotated[
    dict[str, Any],
    partial(EvaluationSettings, "Evaluation", "An evaluation; the preset supplies what it does not say."),
]


class Preset(Model):
    """The world a run lives in. A preset file may start `from` another preset."""

    name: SkipJsonSchema[Name] = Field(description="The name of the file, without .yaml; not written in it.")
    description: str = Field(description="One line for people.")
    backbone: Weights = Field(
        description="The text-to-image model, a diffusers StableDiffusionPipeline: Stable Diffusion 1.x or 2.x, or a "
        "model of their structure."
    )
    text_padding: Literal["longest", "max_length"] = Field(
        description="Prompts are padded to the longest of the batch, with a mask (released code), or to the maximum."
    )
    precision: Literal["float32", "float16", "bfloat16"] = Field(
        description="Precision of frozen networks; text encoder, adapters, latents and losses are float32."
    )
    autocast: Literal["bfloat16"] | None = Field(
        None,
        description="Let U-Net and decoder compute in bfloat16, with float32 weights, where the processor has "
        "instructions for it; unset: in `precision`.",
    )
    compile: bool = Field(
        False,
        description="Let torch compile the U-Net for all that is sampled without gradient and without a method's "
        "hooks. Takes a minute or two per job and per number of images at once; changes no result beyond rounding.",
    )
    prompts: dict[Name, Prompts] = Field(
        min_length=1, description="Prompt sets by name; `occupations` is the one used unless said otherwise."
    )
    faces: dict[Name, Faces] = Field(description="Face data sets by name.")
    detector: Detector = Field(description="Face detection.")
    chip: Chip = Field(description="Face crops.")
    classifiers: dict[Name, Classifier] = Field(
        description="Attribute classifiers by name; `loss` and `evaluation` are those used unless said otherwise."
    )
    encoders: EncoderRoles = Field(description="Image encoders.")
    face_embedding: FaceWeights = Field(description="The SFNet face embedding of the face loss.")
    bank: Bank = Field(description="Real faces of the face loss.")
    reader: Reader | None = Field(None, description="Independent reading of attributes; unset: none.")
    concept_reader: Weights | None = Field(
        None, description="Says whether the occupation is readable; unset: not asked."
    )
    quality: Quality | None = Field(
        None, description="Real pictures that image quality is measured against; unset: it is not measured."
    )
    micro_batch: Annotated[MicroBatch, _Sizes()] = Field(description="Images in flight at once; auto: all sizes are.")
    job: Job = Field(
        default_factory=Job, description="CPU threads, GPUs, memory and minutes of a job; changes no meaning."
    )
    defaults: RunDefaults = Field(description="Settings of every run that does not say otherwise.")
    by_attributes: dict[AttributeSet, RunDefaults] = Field(
        default_factory=dict,
        description="Settings of runs that align exactly these attributes (`gender+race`), on top of `defaults`.",
    )
    by_trained: dict[PartSet, RunDefaults] = Field(
        default_factory=dict,
        description="Settings of runs that train exactly these parts (`text_encoder+unet`), on top of `by_attributes`.",
    )
    by_method: dict[Name, RunDefaults] = Field(
        default_factory=dict,
        description="Settings of runs of a method, on top of `by_trained`: strengths this world needs, and budgets.",
    )
    by_run: dict[Name, RunDefaults] = Field(
        default_factory=dict,
        description="Settings of the run of this name where it does not say otherwise itself; a name the configuration "
        "does not have says nothing.",
    )
    evaluation: EvaluationEntry = Field(description="Settings of every evaluation that does not say otherwise.")
    gradient_study: GradientStudyBudget | None = Field(
        None, description="What the studies of gradient estimators may cost; unset: they are not made."
    )
