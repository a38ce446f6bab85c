"""The preset of the paper, from its downloads to a table: small files in the real formats, networks at reduced width.

A hub on this machine has a pipeline in the layout of Stable Diffusion 1.5's repository, CLIP and DINOv2 in that of
theirs, and timm's MobileNetV3-Large; CelebA and FairFace, the authors' data.zip and their checkpoints are in data/.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import save

from distalign.config.attributes import ATTRIBUTES
from distalign.diffusion.pipeline import load_pipeline
from distalign.faces.bank import load_bank
from distalign.store.files import read_json
from distalign.store.parquet import BIAS, IMAGES, TRAIN_LOG, read_provenance, read_table
from helpers.encoders import clip_repository, dino_repository
from helpers.face_archives import celeba, fairface
from helpers.hub import REVISION, Hub, Repository, serve, sha256
from helpers.published import as_published
from helpers.released import checkpoint_members, data_members, write_zip
from helpers.tiny import sd15_shaped_pipeline
from helpers.workflow import copy_project, first_rows, planned, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(3600)]
SD15 = ("--config", "preset=sd15")
TABLE = "results/sd15/tables/small"
RUNS = ("original", "ours_gender", "released_gender")
SEVEN = {"from": "ours_gender", "align": {"gender": "uniform", "race7": "uniform"}}  # FairFace's own groups of race
FACES = 24
# Images are of 64 pixels and noise; with thresholds that let nearly everything pass, there are faces in it.
SMALL: dict[str, Any] = {
    "detector": {"min_face": 20, "scale": 1, "thresholds": [0.01, 0.01, 0.001]},
    "chip": {"size": 64, "expand": 1.5},
    "micro_batch": {"sample": 2, "gradient": 2},
    "job": {"threads": 1, "gpu": 0},
    "evaluation": {"images_per_prompt": 2, "sampler_steps": 3, "guidance": 7.5},
    "reader": {"faces": "fairface", "neighbours": 3},
}
BUDGET = {
    "images_per_step": 4, "iterations": 1, "sampler_steps": [2], "validation_images": 1, "validate_every": 1, "rank": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """With a repository for each that presets/sd15.yaml names."""
    folder = tmp_path_factory.mktemp("repositories")
    as_published(sd15_shaped_pipeline(folder / "stable-diffusion-v1-5/stable-diffusion-v1-5"))
    clip_repository(folder / "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "ViT-H-14")
    clip_repository(folder / "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", "ViT-bigG-14")
    dino_repository(folder / "facebook/dinov2-base", swiglu=False)
    dino_repository(folder / "facebook/dinov2-giant", swiglu=True)
    torch.manual_seed(0)
    imagenet = folder / "timm/mobilenetv3_large_100.ra_in1k"
    imagenet.mkdir(parents=True)
    (imagenet / "config.json").write_text('{"architecture": "mobilenetv3_large_100"}')
    network = timm.create_model("mobilenetv3_large_100")
    (imagenet / "model.safetensors").write_bytes(save(network.state_dict(), {"format": "pt"}))
    with serve() as hub, pytest.MonkeyPatch.context() as patch:
        for repository in folder.glob("*/*"):
            files = {it.relative_to(repository).as_posix(): it.read_bytes() for it in _files(repository)}
            hub.repositories[repository.relative_to(folder).as_posix()] = Repository(files)
        for name, value in {"HF_ENDPOINT": hub.url, "HF_HOME": folder / "cache", "HF_HUB_DISABLE_XET": 1}.items():
            patch.setenv(name, str(value))
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
            patch.delenv(name, raising=False)
        yield hub


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def prepared(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the downloads in data/, the preset's budget lowered and its commits those of the hub."""
    project = copy_project(tmp_path_factory.mktemp("sd15") / "distalign")
    celeba(project / "data/celeba", FACES, packed=True, divided=True)
    fairface(project / "data/fairface", FACES)
    archive = write_zip(project / "data/released/data.zip", data_members())
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(project, [name for name in opened.namelist() if "opensphere" in name])
    backbone = load_pipeline(sd15_shaped_pipeline(project / "as_trained"))
    write_zip(project / "data/released/exp-1-checkpoints.zip", checkpoint_members(backbone))
    preset = yaml.safe_load((project / "presets/sd15.yaml").read_text())
    _repin(preset, sha256(hub.repositories["timm/mobilenetv3_large_100.ra_in1k"].files["model.safetensors"]))
    for classifier in preset["classifiers"].values():
        classifier |= {"epochs": 1, "batch_size": 8}
    for name in ("loss", "evaluation"):
        preset["classifiers"][name]["labels"]["race7"] = "fairface"
    preset |= SMALL
    for settings in (preset["defaults"], *preset["by_attributes"].values()):
        settings |= BUDGET
    (project / "presets/sd15.yaml").write_text(yaml.safe_dump(preset, sort_keys=False))
    config = first_rows()
    released = yaml.safe_load((project / "resources/released/rows.yaml").read_text())["runs"]
    config["runs"] = {run: (config["runs"] | released)[run] for run in RUNS}
    config["evaluations"]["occupations"] |= {"at_most": 2}
    config["runs"]["ours_seven"] = SEVEN
    columns = ["bias/gender", "bias/race", "bias/age", "bias/race7", "clip_t", "clip_i", "dino", "face_found"]
    rows = [{"run": run, "label": run} for run in config["runs"]]
    table = {"title": "Small", "evaluation": "occupations", "columns": columns, "rows": rows}
    config |= {"tables": {"small": table}, "figures": {}}
    (project / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return project


def _repin(entry: dict[str, Any], imagenet: str) -> None:
    """Commits of the hub on this machine, and the checksum of its ImageNet weights."""
    for key, value in entry.items():
        if key == "revision":
            entry[key] = REVISION
        elif key == "sha256":
            entry[key] = imagenet
        elif isinstance(value, dict):
            _repin(value, imagenet)


@pytest.fixture(scope="module")
def project(prepared: Path) -> Path:
    """After the run; read only."""
    result = snakemake(prepared, f"{TABLE}.md", *SD15, timeout=3600)
    assert result.returncode == 0, result.stdout + result.stderr
    return prepared


def test_a_table_comes_out_with_a_row_of_each_kind(project: Path) -> None:
    text = (project / f"{TABLE}.md").read_text()
    assert all(run in text for run in RUNS)
    assert planned(project, f"{TABLE}.md", *SD15) == {}


def test_everything_was_fetched_and_recorded(project: Path, hub: Hub) -> None:
    records = {path.parent.relative_to(project / "results/sd15").as_posix() for path in project.rglob("fetched.json")}
    encoders = {f"encoders/{role}/{kind}" for role in ("training", "evaluation") for kind in ("clip", "dino")}
    assert records == {"backbone", *encoders, "initial/loss", "initial/loss_celeba", "initial/evaluation"}
    assert not any(path.endswith((".bin", ".ckpt")) for path in hub.downloads())


def test_faces_and_classifiers_are_those_of_the_data_sets(project: Path) -> None:
    results = project / "results/sd15"
    for name in ("celeba", "fairface"):
        provenance = read_provenance(results / f"faces/{name}.parquet")
        assert provenance["spec"]["source"] == name
    cards = {path.parent.name: path.read_text() for path in results.glob("classifiers/*/card.md")}
    assert cards.keys() == {"loss", "loss_celeba", "evaluation"}
    assert "mobilenet_v3_large" in cards["loss"]


def test_all_seven_groups_are_read_and_aligned(project: Path) -> None:
    results = project / "results/sd15"
    rows = read_table(results / "bias/ours_seven/0/occupations.parquet", BIAS).to_pylist()
    seven = {tuple(dict(row["target"])) for row in rows if row["attribute"] == "race7"}
    assert seven == {ATTRIBUTES["race7"]}
    assert {row["classifier"] for row in rows if row["attribute"] == "gender+race7"} == {"loss", "evaluation", "reader"}
    assert "race7=southeast_asian" in (results / "classifiers/evaluation/card.md").read_text()
    assert set(load_bank(results / "bank.safetensors").labels) == {"gender", "race", "age", "race7"}


def test_one_step_was_taken_and_images_share_their_noise(project: Path) -> None:
    results = project / "results/sd15"
    spec = read_json(results / "runs/ours_gender/0/spec.json")
    assert (spec["iterations"], spec["plan"]["precision"]) == (1, "float16")
    log = read_table(results / "runs/ours_gender/0/train_log.parquet", TRAIN_LOG).to_pylist()
    (norm,) = (row["value"] for row in log if row["metric"] == "gradient_norm")
    assert 0 < norm < float("inf")
    seeds, pixels = [], []
    for run in RUNS:
        rows = read_table(results / f"images/{run}/0/occupations.parquet", IMAGES).to_pylist()
        seeds.append([row["noise_seed"] for row in rows])
        pixels.append([row["image"]["bytes"] for row in rows])
    assert seeds[0] == seeds[1] == seeds[2] and len(seeds[0]) == 4
    assert pixels[0] != pixels[2]  # the released adapter is a strong one
