"""Released adapters give, through our conversion and diffusers' loaders, what their definition says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distalign.config.methods import METHODS
from distalign.diffusion.adapters import load_adapter, save_adapter
from distalign.diffusion.pipeline import Pipeline, load_pipeline
from distalign.diffusion.text import encode_prompts
from distalign.errors import UserError
from distalign.methods.loading import load_run
from distalign.released.adapters import build_adapter, convert_adapter, read_states
from distalign.released.archive import Archive
from distalign.store.parquet import TRAIN_LOG, read_table
from helpers.released import (
    CHECKPOINT,
    checkpoint_members,
    prefix_embedding,
    saved,
    text_encoder_lora,
    unet_lora,
    write_zip,
)

MAKERS: dict[str, Callable[[Pipeline], dict[str, Tensor]]] = {
    "text_encoder": text_encoder_lora,
    "unet": unet_lora,
    "prompt_prefix": prefix_embedding,
}
PROMPTS = ["a doctor", "a plumber at work"]
Change = Callable[[dict[str, Tensor]], None]


def double(path: Path) -> Pipeline:
    return load_pipeline(path, dtype=torch.float64)


@torch.no_grad()
def outputs(pipeline: Pipeline) -> dict[str, Tensor]:
    """What text encoder and U-Net make of fixed inputs, in float64."""
    pipeline.text_encoder.double(), pipeline.unet.double()
    ids = torch.arange(20).view(2, 10) % 50
    states = pipeline.text_encoder(input_ids=ids).last_hidden_state
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    fixed = torch.randn(2, 10, 32, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return {"text_encoder": states, "unet": pipeline.unet(noise, 7, encoder_hidden_states=fixed).sample}


def merge_by_hand(pipeline: Pipeline, state: dict[str, Tensor]) -> None:
    """W + up @ down in every layer the names speak of."""
    for name, down in state.items():
        if not name.endswith(".down.weight"):
            continue
        up = state[name.replace(".down.", ".up.")].double()
        if ".processor." in name:
            place, _, projection = name.removesuffix("_lora.down.weight").partition(".processor.")
            layer = pipeline.unet.get_submodule(place).get_submodule({"to_out": "to_out.0"}.get(projection, projection))
        else:
            place = name.removesuffix(".lora_linear_layer.down.weight").removeprefix("text_model.")
            layer = pipeline.text_encoder.get_submodule(place)
        layer.weight.data += up @ down.double()


@pytest.mark.parametrize("parts", [["text_encoder"], ["unet"], ["text_encoder", "unet"]], ids="+".join)
def test_lora_is_added_to_the_weights(backbone: Path, tmp_path: Path, parts: list[str]) -> None:
    model = load_pipeline(backbone)
    states = {part: MAKERS[part](model) for part in parts}
    assert {part: len(state) for part, state in states.items()} == {
        part: {"text_encoder": 144, "unet": 256}[part] for part in parts
    }
    save_adapter(build_adapter(model, states, "here"), tmp_path / "adapter")
    converted, merged = double(backbone), double(backbone)
    load_adapter(converted, tmp_path / "adapter")
    for state in states.values():
        merge_by_hand(merged, state)
    got, expected, before = outputs(converted), outputs(merged), outputs(double(backbone))
    for part in expected:
        torch.testing.assert_close(got[part], expected[part], rtol=1e-10, atol=1e-10)
        assert ((expected[part] - before[part]).abs().max() > 1e-2) == (part in parts)


def test_a_prefix_stands_before_every_prompt(backbone: Path, tmp_path: Path) -> None:
    model = load_pipeline(backbone)
    state = prefix_embedding(model, tokens=5)
    save_adapter(build_adapter(model, {"prompt_prefix": state}, "here"), tmp_path / "adapter")
    converted, plain = load_pipeline(backbone), load_pipeline(backbone)
    load_adapter(converted, tmp_path / "adapter")
    table = plain.text_encoder.embeddings.token_embedding
    size = table.num_embeddings
    longer = torch.nn.Embedding.from_pretrained(torch.cat([table.weight, state["token_embedding.weight"][1:]]))
    plain.text_encoder.embeddings.token_embedding = longer
    with torch.no_grad():
        got = encode_prompts(converted, PROMPTS[:1]).embeddings
        start, *rest = plain.tokenizer(PROMPTS[0])["input_ids"]
        ids = torch.tensor([[start, *range(size, size + 5), *rest]])
        expected = plain.text_encoder(input_ids=ids).last_hidden_state
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def without(name: str) -> Change:
    def change(state: dict[str, Tensor]) -> None:
        del state[next(key for key in state if key.endswith(name))]

    return change


def reshaped(name: str, rows: int) -> Change:
    def change(state: dict[str, Tensor]) -> None:
        key = next(key for key in state if key.endswith(name))
        state[key] = state[key][:rows]

    return change


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("text_encoder", without("3.mlp.fc2.lora_linear_layer.up.weight"), r"text_encoder_lora: lacks .*3\.mlp\.fc2"),
        ("unet", without("to_out_lora.down.weight"), r"unet_lora: lacks down_blocks\..*processor\.to_out_lora\.down"),
        (
            "text_encoder",
            lambda state: state.update({"text_model.extra": torch.ones(1)}),
            "unexpected text_model.extra",
        ),
        (
            "unet",
            lambda state: state.update({"layers.0.to_q_lora.up.weight": torch.ones(1)}),
            "unexpected layers.0.to_q",
        ),
        ("text_encoder", reshaped("11.mlp.fc1.lora_linear_layer.down.weight", 2), r"shape \(2, 32\), where \(3, 32\)"),
        ("text_encoder", lambda state: [state.pop(key) for key in list(state)], "not a LoRA"),
        ("unet", reshaped("to_k_lora.up.weight", 5), r"to_k_lora.up.weight has shape \(5, 3\), where \(8, 3\)"),
        ("prompt_prefix", without("position_ids"), "prefix_embedding: lacks position_ids"),
        ("prompt_prefix", reshaped("position_embedding.weight", 9), r"\(9, 32\), where \(77, 32\)"),
        ("prompt_prefix", reshaped("token_embedding.weight", 1), r"token_embedding has shape \(1, 32\)"),
        (
            "prompt_prefix",
            lambda state: state.update({"position_embedding.weight": state["position_embedding.weight"] + 0.01}),
            "made for another text encoder",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused(backbone: Path, part: str, change: Change, message: str) -> None:
    model = load_pipeline(backbone)
    state = MAKERS[part](model)
    change(state)
    with pytest.raises(UserError, match=message):
        build_adapter(model, {part: state}, "here")


def test_a_prefix_survives_a_model_in_half_precision(backbone: Path) -> None:
    model = load_pipeline(backbone)
    state = prefix_embedding(model)
    positions = model.text_encoder.embeddings.position_embedding.weight
    positions.data = positions.data.half().float()
    assert build_adapter(model, {"prompt_prefix": state}, "here").train == ("prompt_prefix",)


@pytest.fixture(scope="session")
def archive(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    members = checkpoint_members(load_pipeline(backbone))
    return write_zip(tmp_path_factory.mktemp("released") / "data/exp-1-checkpoints.zip", members)


def spec_of(path: Path, **changed: Any) -> dict[str, Any]:
    settings = {"archive": path.name, "folder": CHECKPOINT, "ema": True, **changed}
    return {"method": "released", "version": 1, "align": {"gender": {"female": 0.5, "male": 0.5}}, "settings": settings}


def test_a_run_is_written_and_loaded(backbone: Path, archive: Path, tmp_path: Path) -> None:
    spec = spec_of(archive)
    convert_adapter(spec, backbone, tmp_path, archive.parent)
    assert json.loads((tmp_path / "spec.json").read_text()) == spec
    assert read_table(tmp_path / "train_log.parquet", TRAIN_LOG).num_rows == 0
    assert json.loads((tmp_path / "provenance.json").read_text())["inputs"].keys() == {"backbone", "archive"}
    generating = {"precision": "float32", "adapter": {"method": "released"}, "text_padding": "longest"}
    inputs = {"backbone": backbone, "adapter": tmp_path / "adapter"}
    pipeline, _ = load_run(generating, Path(), inputs, torch.device("cpu"))
    merged = double(backbone)
    for make in (text_encoder_lora, unet_lora):
        merge_by_hand(merged, make(merged))
    got, expected = outputs(pipeline), outputs(merged)
    for part in expected:
        torch.testing.assert_close(got[part], expected[part], rtol=1e-4, atol=1e-4)


def test_averages_or_not(backbone: Path, archive: Path) -> None:
    opened = Archive(archive)
    average, raw = (read_states(opened, CHECKPOINT, ema) for ema in (True, False))
    assert average.keys() == raw.keys() == {"text_encoder", "unet"}
    for part, state in average.items():
        assert all(torch.allclose(raw[part][name], value + 1) for name, value in state.items())


def test_what_the_folder_lacks_is_named(backbone: Path, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"has no folder elsewhere. Its folders are {CHECKPOINT}"):
        convert_adapter(spec_of(archive, folder="elsewhere"), backbone, tmp_path, archive.parent)
    with pytest.raises(UserError, match=r"nowhere.zip: no such file. Download it as docs/released.md says"):
        convert_adapter(spec_of(archive, archive="nowhere.zip"), backbone, tmp_path, archive.parent)
    others = {f"{CHECKPOINT}/{name}": b"" for name in ("text_encoder_lora.pth", "optimizer.bin")}
    path = write_zip(tmp_path / "raw.zip", others)
    with pytest.raises(
        UserError, match=r"none of text_encoder_lora_EMA.pth, .* which holds text_encoder_lora.pth, opt"
    ):
        convert_adapter(spec_of(path), backbone, tmp_path, path.parent)
    mixed = {f"{CHECKPOINT}/{name}": b"" for name in ("text_encoder_lora.pth", "unet_lora.pth", "unet_lora_EMA.pth")}
    path = write_zip(tmp_path / "half.zip", mixed)
    with pytest.raises(UserError, match=r"lacks text_encoder_lora_EMA.pth, though it has .* with ema: false"):
        convert_adapter(spec_of(path), backbone, tmp_path, path.parent)
    path = write_zip(tmp_path / "cut.zip", {f"{CHECKPOINT}/unet_lora_EMA.pth": saved({"a": torch.ones(9)})[:300]})
    with pytest.raises(UserError, match=r"unet_lora_EMA.pth: not a complete file of torch.save"):
        convert_adapter(spec_of(path), backbone, tmp_path, path.parent)
    assert not (tmp_path / "adapter").exists()


def test_the_method_is_one_of_a_converted_adapter() -> None:
    assert [name for name, method in METHODS.items() if method.adapter] == ["adjusted_dft", "released"]
