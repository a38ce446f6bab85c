"""Where pretrained models come from, as presets say it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from distalign.config.files import read_yaml
from distalign.config.models.weights import MOVED
from distalign.config.problems import ConfigError
from distalign.config.study import load_study

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def problem(root: Path, raw: dict[str, Any], **changes: Any) -> str:
    """What is said of the preset `mini` with these keys changed."""
    preset = root / "presets/mini.yaml"
    preset.write_text(yaml.safe_dump(read_yaml(preset) | changes))
    with pytest.raises(ConfigError) as caught:
        load_study(raw, root)
    return str(caught.value)


@pytest.mark.parametrize("gone", MOVED)
def test_model_that_left_the_hub_says_where_it_is(own_root: Path, raw: dict[str, Any], gone: str) -> None:
    said = problem(own_root, raw, backbone={"source": "hub", "id": gone, "revision": COMMIT})
    here, revision = MOVED[gone]
    assert f'backbone.id: "{gone}"\n      is no longer on the hub; the same weights are' in said
    assert f"{{id: {here}, revision: {revision}}}" in said


def test_default_is_where_the_papers_model_is_now(root: Path, raw: dict[str, Any]) -> None:
    backbone = load_study(raw | {"preset": "sd15"}, root).preset.backbone
    assert (backbone.id, backbone.revision) == MOVED["runwayml/stable-diffusion-v1-5"]


@pytest.mark.parametrize("revision", ["main", "v1.0", COMMIT[:12], COMMIT.upper()])
def test_revision_is_a_commit(own_root: Path, raw: dict[str, Any], revision: str) -> None:
    said = problem(own_root, raw, backbone={"source": "hub", "id": "owner/name", "revision": revision})
    assert f'backbone.revision: "{revision}"\n      should be the 40 hex digits of a commit' in said


def test_what_a_source_needs_is_asked_for(own_root: Path, raw: dict[str, Any]) -> None:
    said = problem(own_root, raw, backbone={"source": "hub"}, face_embedding={"source": "opensphere"})
    assert "source hub also needs id and revision" in said
    assert "source opensphere also needs path" in said


def test_a_published_data_set_needs_its_folder(own_root: Path, raw: dict[str, Any]) -> None:
    faces = read_yaml(own_root / "presets/mini.yaml")["faces"]
    said = problem(own_root, raw, faces=faces | {name: {"source": name} for name in ("celeba", "fairface")})
    for name in ("celeba", "fairface"):
        assert f"source {name} also needs path" in said


def test_initial_weights_are_for_one_architecture(own_root: Path, raw: dict[str, Any]) -> None:
    classifiers = read_yaml(own_root / "presets/sd15.yaml")["classifiers"]
    classifiers["loss"]["architecture"] = "convnet"
    preset = own_root / "presets/mini.yaml"
    preset.write_text(yaml.safe_dump({"from": "sd15", "description": "Changed.", "classifiers": classifiers}))
    with pytest.raises(ConfigError) as caught:
        load_study(raw, own_root)
    assert "initial is for mobilenet_v3_large; convnet starts from random weights" in str(caught.value)


def test_only_the_face_embedding_may_come_from_opensphere(own_root: Path, raw: dict[str, Any]) -> None:
    source = {"source": "opensphere", "path": "a.pth"}
    assert "backbone.source" in problem(own_root, raw, backbone=source, face_embedding=source)
    preset = own_root / "presets/mini.yaml"
    mini = read_yaml(preset) | {"backbone": {"source": "shipped", "path": "resources/miniworld/backbone"}}
    preset.write_text(yaml.safe_dump(mini))
    assert load_study(raw, own_root).preset.face_embedding.source == "opensphere"


def test_another_pipeline_is_one_key_of_a_preset(own_root: Path, raw: dict[str, Any]) -> None:
    (own_root / "presets/mine.yaml").write_text(
        "from: sd15\ndescription: Another model.\nbackbone: {source: directory, path: data/mine, variant: fp16}\n"
    )
    study = load_study(raw | {"preset": "mine"}, own_root)
    assert (study.preset.backbone.source, study.preset.backbone.variant) == ("directory", "fp16")
    assert study.preset.defaults == load_study(raw | {"preset": "sd15"}, own_root).preset.defaults
