"""The images of an evaluation: one noise per image whatever the batch, and a file that says what it holds."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from distalign.diffusion.images import Cost, PngColumn, generate_images
from distalign.diffusion.reconstruction import reconstructor
from distalign.methods.loading import load_run
from distalign.store.parquet import IMAGES, decode_image, encode_png, read_provenance, read_table

SPEC: dict[str, Any] = {
    "seed": 3,
    "split": "test",
    "images_per_prompt": 2,
    "sampler_steps": 2,
    "guidance": 3.0,
    "text_padding": "longest",
    "precision": "float32",
    "micro_batch": {"sample": 3, "gradient": 1},
}
CPU = torch.device("cpu")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.json"
    splits = {"train": ["cook"], "validation": ["judge"], "test": ["pilot", "gas plant operator"]}
    path.write_text(json.dumps({"template": "a {concept}", "splits": splits}))
    return path


def generate(spec: dict[str, Any], prompts: Path, backbone: Path, output: Path) -> Cost:
    inputs = {"backbone": backbone}
    return generate_images(spec, prompts, inputs, lambda: load_run(spec, prompts, inputs, CPU), output)


def test_images_depend_on_prompt_and_index_only(tiny_backbone: Path, prompts: Path, tmp_path: Path) -> None:
    cost = generate(SPEC, prompts, tiny_backbone, tmp_path / "a.parquet")
    assert (cost.images, cost.evaluations) == (4, 1)
    alone = SPEC | {"micro_batch": {"sample": 1, "gradient": 1}}
    generate(alone, prompts, tiny_backbone, tmp_path / "b.parquet")
    first, second = (read_table(tmp_path / f"{name}.parquet", IMAGES) for name in "ab")
    assert first["prompt_id"].to_pylist() == ["pilot", "pilot", "gas-plant-operator", "gas-plant-operator"]
    assert first["index"].to_pylist() == [0, 1, 0, 1]
    assert first["noise_seed"].equals(second["noise_seed"])
    for one, two in zip(first["image"].to_pylist(), second["image"].to_pylist(), strict=True):
        pixels = [decode_image(cell["bytes"]).astype(int) for cell in (one, two)]
        assert abs(pixels[0] - pixels[1]).max() <= 1
    assert read_provenance(tmp_path / "a.parquet")["seeds"] == {"noise": 3}


def test_images_come_out_in_their_order_and_as_they_were_encoded() -> None:
    batches = [torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(i)) * 2 - 1 for i in range(4)]
    names = [[f"{i}-{j}" for j in range(3)] for i in range(4)]
    with PngColumn() as column:
        found = [column.put({"image_id": own}, images) for own, images in zip(names, batches, strict=True)]
        found.append(column.rest())
        assert column.rest() is None
    assert found[0] is None
    for ready, own, images in zip(found[1:], names, batches, strict=True):
        pixels = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        expected = [
            {"bytes": encode_png(image), "path": f"{name}.png"} for image, name in zip(pixels, own, strict=True)
        ]
        assert ready["image_id"] == own
        assert ready["image"].to_pylist() == expected


def test_other_seeds_give_other_noise(tiny_backbone: Path, prompts: Path, tmp_path: Path) -> None:
    seeds = []
    for seed in (3, 4):
        generate(SPEC | {"seed": seed}, prompts, tiny_backbone, tmp_path / f"{seed}.parquet")
        seeds.append(set(read_table(tmp_path / f"{seed}.parquet", IMAGES)["noise_seed"].to_pylist()))
    assert not seeds[0] & seeds[1]


def test_reconstruction_keeps_shape_and_range_and_repeats(tiny_backbone: Path) -> None:
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    first, second = (reconstructor(tiny_backbone, CPU, seed=1)(images) for _ in range(2))
    assert first.shape == images.shape
    assert first.abs().max() <= 1
    assert torch.equal(first, second)
