"""A clone in which a small made-up study ran: everything written by the real writers, only the images are noise."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pyarrow as pa
import pytest
import yaml

from distalign.config.study import Study, load_study
from distalign.measure.bias import RunKey, bias_table
from distalign.measure.results import collect_results
from distalign.present.style import write_figure_files
from distalign.present.tables import build_table, write_table_files
from distalign.store.files import TIMESTAMP, atomic_write_bytes, atomic_write_json
from distalign.store.parquet import BIAS, CLASSIFIED, IMAGES, RESULTS, TRAIN_LOG, write_table
from distalign.store.provenance import by_place, collect, write_provenance
from distalign.store.usage import measured, usage_file
from helpers.workflow import ROOT, first_rows
from unit.measure.predictions import predictions
from unit.present.examples import PROMPTS, log, study

RUNS = {"original": 4, "ours_gender": 2}  # images of a prompt, of 4, that show a woman
READERS = ("loss", "evaluation", "reader")
FOLDER = Path("results/mini")
FORMATS = ("parquet", "csv", "md", "tex", "html", "txt")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clone; read only."""
    root = tmp_path_factory.mktemp("clone") / "distalign"
    make_clone(root)
    return root


@pytest.fixture
def clone(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it that a test may change, and the working directory."""
    root = tmp_path / "distalign"
    shutil.copytree(finished, root, symlinks=True)
    monkeypatch.chdir(root)
    yield root


def make_clone(root: Path) -> None:
    """Write the clone."""
    shutil.copytree(ROOT / "presets", root / "presets")
    (root / "envs").mkdir()
    for name in ("requirements.in", "requirements.txt", "distalign.yaml"):
        shutil.copy(ROOT / "envs" / name, root / "envs")
    (root / "resources").symlink_to(ROOT / "resources")
    (root / "config.yaml").write_text(yaml.safe_dump(config(), sort_keys=False))
    before = Path.cwd()
    os.chdir(root)  # places of inputs are those below results/{preset}, as jobs have them
    try:
        make_results(load_study(config(), root))
    finally:
        os.chdir(before)


def config() -> dict[str, Any]:
    """Two runs, and a table in which one of them stands twice."""
    whole = first_rows()
    rows = [
        {"run": "original", "label": "Original"},
        {"run": "ours_gender", "label": "Ours", "group": "Gender"},
        {"run": "ours_gender", "label": "Ours", "group": "Inside the loss", "classifier": "loss"},
    ]
    columns = ["bias/gender", "frequency/gender=female@loss", "clip_t", "takes_target", "seconds"]
    table = {"title": "A table", "evaluation": "occupations", "columns": columns, "rows": rows}
    return whole | {
        "runs": {name: whole["runs"][name] for name in RUNS},
        "tables": {"headline": table},
        "figures": {},
    }


def make_results(made: Study) -> None:
    """Every artefact of the study, in the order of the rules."""
    for name in ("loss", "evaluation"):
        atomic_write_bytes(FOLDER / f"classifiers/{name}/model.safetensors", name.encode())
    bias, classified = [], []
    for run, women in RUNS.items():
        if run != "original":
            make_run(made, run)
        bias.append(make_measurements(made, run, women))
        classified.append(FOLDER / f"classified/{run}/0/occupations.parquet")
    results = collect_results(bias, classified, made.read())
    inputs = by_place([*bias, *classified])
    write_table(FOLDER / "results.parquet", results, RESULTS, collect("results", {"read": made.read()}, inputs))
    spec = {**made.table_spec("headline"), "read": made.read()}
    table = build_table("headline", spec, results)
    paths = [FOLDER / f"tables/headline.{suffix}" for suffix in FORMATS]
    with measured(usage_file(FOLDER / "logs/render_table/headline.log"), "render_table", spec):
        write_table_files(table, paths, collect("tables", spec, inputs))
    figure = plt.figure()
    data = pa.table({"run": list(RUNS)})
    files = [FOLDER / f"figures/frequencies.{suffix}" for suffix in ("png", "parquet")]
    write_figure_files(figure, files, data, collect("figures", {"kind": "frequencies"}, by_place(bias)))


def make_run(made: Study, run: str) -> None:
    """An adapter, its training log, and where they come from."""
    folder, spec = FOLDER / f"runs/{run}/0", made.finetune_spec(run, 0)
    inputs = {"classifier": FOLDER / "classifiers/loss", "evaluation_classifier": FOLDER / "classifiers/evaluation"}
    inputs["prompts/mini_occupations"] = Path("resources/prompts/mini_occupations.json")
    with measured(usage_file(FOLDER / f"logs/finetune/{run}/0.log"), "finetune", spec):
        provenance = collect("finetune", spec, inputs, {"run": 0})
        write_table(folder / "train_log.parquet", log(), TRAIN_LOG, provenance)
        atomic_write_json(folder / "spec.json", spec)
        write_provenance(folder / "provenance.json", provenance)
        atomic_write_bytes(folder / "adapter/pytorch_lora_weights.safetensors", b"weights of " + run.encode())
        (folder / "adapter" / TIMESTAMP).touch()


def make_measurements(made: Study, run: str, women: int) -> Path:
    """Images, what is seen in them, and bias; the file of the bias."""
    images, _, _ = study(run, women)
    rows = [
        (prompt, {"gender": "female" if index < women else "male", "race": "asian", "age": "old"})
        for prompt in PROMPTS
        for index in range(4)
    ]
    seen = predictions(rows, READERS, ("gender", "race", "age"))
    place = f"{run}/0/occupations.parquet"
    adapter = {"adapter": FOLDER / f"runs/{run}/0/adapter"} if made.adapted(run) else {}
    write_table(
        FOLDER / "images" / place, images, IMAGES,
        collect("generate", made.image_spec(run, 0, "occupations"), adapter, {"noise": 0}),
    )  # fmt: skip
    inputs = {"images": FOLDER / "images" / place, "loss": FOLDER / "classifiers/loss"}
    write_table(
        FOLDER / "classified" / place, seen, CLASSIFIED(made.read()),
        collect("classify", made.classify_spec("occupations"), inputs, {"run": 0}),
    )  # fmt: skip
    key = RunKey("mini", run, 0, "occupations")
    provenance = collect("bias", made.bias_spec(run), {"classified": FOLDER / "classified" / place}, {"run": 0})
    write_table(FOLDER / "bias" / place, bias_table(seen, key, {}), BIAS, provenance)
    return FOLDER / "bias" / place
