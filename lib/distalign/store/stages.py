"""Stage versions, and the check that they follow the code.

Snakemake reruns a job when its parameters change, but does not see edits in this library, and of a script it sees a
comment as well as a change. So each stage's version is a parameter of its rule: raise it whenever the stage's output
changes, and everything behind it is made again.
`tests/data/stage_hashes.json` remembers each stage's code; a test fails when the code changed and the version did not.
After a change that leaves outputs as they were (a rename, a message): `python -m distalign.store.stages --update`.
"""

import argparse
import ast
import hashlib
import io
import tokenize
from pathlib import Path

from distalign.config.methods import METHODS, UNCHANGED
from distalign.store.files import atomic_write_json

STAGES: dict[str, int] = {
    "faces": 1,
    "backbone": 1,
    "classifiers": 1,
    "originals": 3,
    "finetune": 3,
    "fit": 1,
    "generate": 3,
    "classify": 2,
    "reference": 1,
    "quality": 1,
    "bias": 1,
    "results": 1,
    "tables": 3,
    "figures": 4,
    "early_backbone": 1,
    "gradient_study": 1,
    "claims": 2,
    "report": 1,
}

# Modules whose code decides a stage's output, as patterns below lib/distalign/.
MODULES: dict[str, tuple[str, ...]] = {
    "faces": ("miniworld/**/*.py", "faces/*.py", "datasets/*.py", "store/images.py", "store/seeds.py"),
    "backbone": (
        "weights.py", "miniworld/shipped.py", "store/hub.py", "store/layouts.py", "store/pretrained.py",
        "faces/opensphere.py",
    ),
    "classifiers": ("classifiers/*.py", "faces/crop.py", "diffusion/reconstruction.py", "store/seeds.py"),
    "originals": (
        "alignment/originals.py", "alignment/plan.py", "alignment/reading.py", "diffusion/*.py", "faces/*.py",
        "encoders/*.py", "classifiers/models.py", "store/seeds.py",
    ),
    "finetune": (
        "alignment/*.py", "diffusion/*.py", "faces/*.py", "encoders/*.py", "classifiers/models.py", "prompts/*.py",
        "store/seeds.py",
    ),
    "fit": ("methods/fitting.py", "methods/world.py", "methods/assignment.py", "methods/cross_attention.py"),
    "generate": (
        "methods/loading.py", "methods/sharding.py", "methods/assignment.py", "methods/cross_attention.py",
        "measure/cost.py", "diffusion/*.py", "prompts/*.py", "store/images.py", "store/seeds.py",
    ),
    "classify": (
        "measure/classify.py", "alignment/reading.py", "faces/*.py", "classifiers/*.py", "encoders/*.py",
        "store/images.py",
    ),
    "reference": (
        "measure/reference.py", "miniworld/*.py", "encoders/*.py", "prompts/*.py", "store/images.py", "store/seeds.py",
    ),
    "quality": ("measure/quality.py", "measure/realism.py", "measure/jackknife.py", "measure/bias.py"),
    "bias": ("measure/bias.py", "measure/floor.py"),
    "results": (
        "measure/bias.py", "measure/bootstrap.py", "measure/floor.py", "measure/results.py", "measure/similarity.py",
        "store/seeds.py",
    ),
    "tables": ("present/cells.py", "present/formats.py", "present/labels.py", "present/pages.py", "present/tables.py"),
    "figures": (
        "present/cells.py", "present/contact_sheet.py", "present/figures.py", "present/frequencies.py",
        "present/guidance.py", "present/labels.py", "present/placement.py", "present/style.py", "present/tables.py",
        "present/tradeoff.py", "present/training_curves.py", "present/gradient_study.py", "measure/gradient_study.py",
    ),
    "report": ("present/pages.py",),
    "early_backbone": (
        "miniworld/*.py", "miniworld/pretrain/early.py", "miniworld/pretrain/autoencoder.py",
        "miniworld/pretrain/denoiser.py", "miniworld/pretrain/loop.py",
    ),
    "gradient_study": (
        "alignment/gradient_study.py", "alignment/one_image.py", "alignment/gradient.py", "alignment/losses.py",
        "diffusion/*.py", "encoders/*.py", "prompts/*.py", "store/seeds.py",
    ),
    "claims": (
        "measure/claims.py", "measure/paired.py", "measure/gradient_study.py", "present/claims.py", "present/labels.py",
        "store/seeds.py",
    ),
}  # fmt: skip

# The jobs' scripts, below workflow_scripts/, which Snakemake is told not to compare (profiles/*: rerun-triggers).
SCRIPTS: dict[str, tuple[str, ...]] = {
    "faces": ("make_faces", "build_bank"),
    "backbone": ("fetch_weights",),
    "classifiers": ("train_classifier", "fetch_classifier"),
    "originals": ("compute_originals",),
    "finetune": ("finetune",),
    "fit": ("fit_method",),
    "generate": ("generate_images",),
    "classify": ("classify_images",),
    "reference": ("make_reference",),
    "quality": ("compute_quality",),
    "bias": ("compute_bias",),
    "results": ("aggregate_results",),
    "tables": ("render_table",),
    "figures": ("plot_figure", "plot_gradient_study"),
    "early_backbone": ("train_early_backbone",),
    "gradient_study": ("study_gradients",),
    "claims": ("check_claims",),
    "report": ("render_card", "render_provenance"),
}

# Each method that is not finetuned is a stage of its own, so that a change to one leaves the others as they are. Its
# version is part of its specification (Study.fit_spec).
CONVERSION = (
    "released/adapters.py", "released/archive.py", "released/tensors.py", "diffusion/adapters.py", "store/archives.py",
)  # fmt: skip
for _name, _method in METHODS.items():
    if not _method.finetuned and _name != UNCHANGED:
        STAGES[f"method {_name}"] = _method.version
        MODULES[f"method {_name}"] = CONVERSION if _method.converted else (f"methods/{_name}.py",)
        SCRIPTS[f"method {_name}"] = ("convert_adapter",) if _method.converted else ()

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parents[1]
RECORD = ROOT / "tests" / "data" / "stage_hashes.json"


def stage_files(stage: str) -> list[Path]:
    """The modules of a stage, sorted, then its scripts."""
    modules = sorted({file for pattern in MODULES[stage] for file in PACKAGE.glob(pattern)})
    return modules + [ROOT / "workflow_scripts" / f"{name}.py" for name in SCRIPTS[stage]]


def stage_hash(stage: str) -> str:
    """Hash a stage's code without comments, docstrings and layout: 16 hex digits."""
    digest = hashlib.sha256()
    for file in stage_files(stage):
        digest.update(f"{file.relative_to(ROOT).as_posix()}\0{code_of(file.read_text(encoding='utf-8'))}\n".encode())
    return digest.hexdigest()[:16]


def code_of(source: str) -> str:
    """A module's source without docstrings, comments and blank lines; the same on every version of Python."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            lines[text.lineno - 1 : text.end_lineno] = [""] * len(lines[text.lineno - 1 : text.end_lineno])
    return "\n".join(line.rstrip() for line in lines if line.strip())


def current() -> dict[str, dict[str, str | int]]:
    """Version and code hash of every stage, as they are now."""
    return {stage: {"version": version, "hash": stage_hash(stage)} for stage, version in STAGES.items()}


def main() -> None:
    """Print the version and code hash of every stage."""
    parser = argparse.ArgumentParser(prog="python -m distalign.store.stages", description=main.__doc__)
    parser.add_argument("--update", action="store_true", help="record them in tests/data/stage_hashes.json")
    if parser.parse_args().update:
        atomic_write_json(RECORD, current())
    for stage, state in current().items():
        print(f"{stage:24} version {state['version']}  code {state['hash']}")


if __name__ == "__main__":
    main()
