"""The kinds of files that the workflow makes: where they stand, which rule makes them, where their provenance is."""

import re
from dataclasses import dataclass
from functools import cache

FREE = {"rest": "(?:/.*)?", "suffix": "[a-z]+", "seed": "[0-9]+"}  # what a name in braces stands for, if not a folder


@dataclass(frozen=True)
class Kind:
    """Files of one kind.

    Attributes:
        pattern: Their place below `results/{preset}/`.
        what: In words.
        rules: Which rules may have made them.
        log: The end of their job's log, below `logs/{rule}`.
        target: What Snakemake calls them, and what stands for all files of one folder.
        record: Where their provenance stands; None where their folder may say.
    """

    pattern: str
    what: str
    rules: tuple[str, ...]
    log: str
    target: str
    record: str | None


def _per_evaluation(folder: str, what: str, rule: str) -> Kind:
    place = f"{folder}/{{run}}/{{seed}}/{{evaluation}}.parquet"
    words = f"{what} of run {{run}}, seed {{seed}}, evaluation {{evaluation}}"
    return Kind(place, words, (rule,), "/{run}/{seed}/{evaluation}", place, place)


def _single(place: str, what: str, rule: str, log: str = "") -> Kind:
    return Kind(place, what, (rule,), log, place, place)


def _model(place: str, what: str) -> Kind:
    return Kind(f"{place}{{rest}}", what, ("fetch_weights",), f"/{place}", place, None)


ADAPTERS = ("finetune", "fit_method", "convert_adapter")
RUN = "runs/{run}/{seed}"
KINDS = (
    Kind("tables/{table}.{suffix}", "table {table}", ("render_table",), "/{table}", "tables/{table}.{suffix}",
         "tables/{table}.parquet"),
    Kind("figures/{figure}.{suffix}", "figure {figure}", ("plot_figure", "plot_gradient_study"), "/{figure}",
         "figures/{figure}.{suffix}", "figures/{figure}.parquet"),
    Kind("claims.{suffix}", "which of the paper's claims hold", ("check_claims",), "", "claims.{suffix}",
         "claims.parquet"),
    _single("results.parquet", "every measurement of the paper's tables", "aggregate_results"),
    _per_evaluation("bias", "bias per prompt", "compute_bias"),
    _per_evaluation("quality", "image quality", "compute_quality"),
    _per_evaluation("classified", "what is seen in each image", "classify_images"),
    _per_evaluation("features", "DINO features of each image", "classify_images"),
    _per_evaluation("images", "images", "generate_images"),
    _per_evaluation("cost", "what generating cost", "generate_images"),
    Kind(f"{RUN}/state{{rest}}", "checkpoints of run {run}, seed {seed}", ("finetune",), "/{run}/{seed}",
         f"{RUN}/adapter", f"{RUN}/provenance.json"),
    Kind(f"{RUN}{{rest}}", "adapter and training of run {run}, seed {seed}", ADAPTERS, "/{run}/{seed}",
         f"{RUN}/adapter", f"{RUN}/provenance.json"),
    _single("originals/{plan}.parquet", "what the frozen model makes of the training noises", "compute_originals",
            "/{plan}"),
    _single("reference/{reference}.parquet", "real pictures to compare with", "make_reference", "/{reference}"),
    _single("gradient_studies/{study}.parquet", "gradient study {study}", "study_gradients", "/{study}"),
    _single("faces/{dataset}.parquet", "faces of data set {dataset}", "make_faces", "/{dataset}"),
    Kind("classifiers/{classifier}{rest}", "classifier {classifier}", ("train_classifier", "fetch_classifier"),
         "/{classifier}", "classifiers/{classifier}/model.safetensors", "classifiers/{classifier}/metrics.parquet"),
    Kind("bank.safetensors", "faces of the face loss", ("build_bank",), "", "bank.safetensors",
         "bank.provenance.json"),
    Kind("reader.safetensors", "faces of the reader", ("build_reader",), "", "reader.safetensors",
         "reader.provenance.json"),
    Kind("pretrain_early/backbone{rest}", "the diffusion model early in its training", ("train_early_backbone",), "",
         "pretrain_early/backbone", "pretrain_early/backbone/provenance.json"),
    _model("backbone", "the diffusion model"),
    _model("encoders/{role}/{encoder}", "encoder {encoder} of the {role}"),
    _model("face_embedding", "the face-recognition network"),
    _model("concept_reader", "the concept reader"),
    _model("initial/{classifier}", "what classifier {classifier} starts from"),
)  # fmt: skip


@cache
def regular(pattern: str) -> re.Pattern[str]:
    """The regular expression of a pattern with names in braces."""
    parts = re.split(r"\{(\w+)\}", pattern)
    text = [
        f"(?P<{part}>{FREE.get(part, '[^/]+')})" if index % 2 else re.escape(part) for index, part in enumerate(parts)
    ]
    return re.compile("".join(text))
