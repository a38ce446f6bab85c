"""The command, what it leaves, and the preset and rows that use it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from distalign.classifiers.models import load_classifier
from distalign.config.attributes import PAPER_ATTRIBUTES
from distalign.config.expansion import merge
from distalign.config.problems import ConfigError
from distalign.config.study import Study, load_study
from distalign.faces.bank import load_bank
from distalign.faces.embedding import load_embedder
from distalign.prompts import load_prompts
from distalign.released.__main__ import main
from helpers.opensphere import WIDTHS
from helpers.released import NETWORKS, data_members, write_zip
from helpers.workflow import ROOT

READS = {"celeba": 1, "fairface": 2, "fairface_age": 3, "evaluation": 3}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which data.zip has been converted."""
    root = tmp_path_factory.mktemp("repository")
    assert main([str(write_zip(root / "data/released/data.zip", data_members()))]) == 0
    shutil.copytree(ROOT / "presets", root / "presets")
    shutil.copy(ROOT / "resources/released/preset.yaml", root / "presets/released.yaml")
    (root / "resources").symlink_to(ROOT / "resources")
    return root


def study(root: Path, preset: str) -> Study:
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    rows = yaml.safe_load((ROOT / "resources/released/rows.yaml").read_text())
    return load_study(merge(config, rows) | {"preset": preset}, root)


def test_everything_is_converted(root: Path) -> None:
    released = root / "data/released"
    assert len(load_prompts(released / "prompts/occupation.json").split("test")) == 2
    for name, count in READS.items():
        assert load_classifier(released / f"classifiers/{name}").attributes == tuple(PAPER_ATTRIBUTES)[:count]
        assert (released / f"classifiers/{name}/card.md").is_file()
        assert (released / f"classifiers/{name}/metrics.parquet").is_file()
    assert load_bank(released / "banks/celeba.safetensors").labels.keys() == {"gender"}
    assert load_bank(released / "banks/fairface.safetensors").labels.keys() == {"gender", "race"}
    assert load_embedder(released / "face_embedding").config.widths == tuple(WIDTHS)
    made = ["banks", "classifiers", "data.zip", "face_embedding", "prompts"]
    assert sorted(path.name for path in released.iterdir()) == made


def test_the_preset_is_that_of_sd15_with_these_files(root: Path) -> None:
    made, before = study(root, "released"), study(root, "sd15")
    assert made.prompt_file("occupations") == "data/released/prompts/occupation.json"
    used = {
        run: made.preset.classifiers[made.runs[run].classifier].weights
        for run in ("ours_gender", "ours_race", "ours_gender_race", "ours_age")
    }
    assert [Path(weights.path or "").name for weights in used.values() if weights] == [
        "celeba",
        "fairface",
        "fairface",
        "fairface_age",
    ]
    assert made.bank_spec()["bank"] == {"path": "data/released/banks/fairface.safetensors"}
    assert made.preset.backbone == before.preset.backbone
    assert made.fit_spec("released_age", 0) == before.fit_spec("released_age", 0)
    files = [made.preset.prompts[name].file for name in made.preset.prompts]
    files += [it.weights.path for it in made.preset.classifiers.values() if it.weights and it.weights.path]
    assert all((root / file).exists() for file in [*files, made.preset.bank.path or ""])


def test_the_rows_need_no_files_until_they_are_made(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    made = study(tmp_path, "sd15")
    released = [run for run in made.runs if made.converted(run)]
    assert len(released) == 8
    assert {row.run for row in made.tables["released"].rows} | {"released_multi"} == {"original", *released}
    spec = made.fit_spec("released_gender_unet", 0)
    assert spec["settings"]["archive"] == made.fit_spec("released_gender", 0)["settings"]["archive"]
    assert "prompts" not in spec
    assert "classifier" not in spec


def test_the_preset_without_its_files_says_which(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    shutil.copy(ROOT / "resources/released/preset.yaml", tmp_path / "presets/released.yaml")
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    with pytest.raises(ConfigError, match=r"data/released/prompts/occupation.json cannot be read: No such file"):
        study(tmp_path, "released")


def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, Any]) -> tuple[int, str, str]:
    code = main([str(write_zip(tmp_path / "data.zip", data_members(changed))), "--to", str(tmp_path / "made")])
    return code, *capsys.readouterr()


def test_what_cannot_be_converted_is_said_and_the_rest_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank = "3-face-features/CelebA_MobileNetLarge_08240859/face_feats.pkl"
    no_networks = dict.fromkeys(NETWORKS)
    code, out, err = run(tmp_path, capsys, {bank: b"cos\nsystem\n.", "1-prompts/sports.json": None, **no_networks})
    assert code == 1
    assert "has no member 1-prompts/sports.json" in err
    assert "os.system is not admitted" in err
    assert "has no member 2-trained-classifiers/CelebA_MobileNetLarge_08060852/*.pt" in err
    assert len(out.splitlines()) == 4 + 1 + 1  # prompts, a bank, the face embedding
    assert not (tmp_path / "made/banks/celeba.safetensors").exists()


def test_no_archive_is_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "data.zip")]) == 1
    assert "data.zip: no such file. Download it as docs/released.md says" in capsys.readouterr().err


def test_prompts_are_json_for_people(root: Path) -> None:
    content = json.loads((root / "data/released/prompts/sports.json").read_text())
    assert content["description"] == "The authors' data/1-prompts/sports.json."
