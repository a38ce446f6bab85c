"""Images in flight: as given, or found under a card's memory (simulated here) and remembered."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distalign.config.fingerprint import fingerprint
from distalign.config.models.preset import Preset
from distalign.diffusion import probing
from distalign.diffusion.adapters import attach_adapter
from distalign.diffusion.batch_sizes import (
    AUTO,
    FILE,
    KINDS,
    LARGEST,
    LOOKED_AT,
    MULTIPLE,
    ON_CPU,
    complete,
    given,
    largest_that_fits,
    looked_at,
    remember,
    remembered,
)
from distalign.diffusion.images import pieces
from distalign.diffusion.pipeline import load_pipeline
from distalign.diffusion.probing import Probe, batch_sizes, fits, seen_by
from distalign.errors import UserError
from helpers.finetuning import RandomEncoder

EVERY = {"sample": AUTO, "gradient": AUTO}
GPU = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("capacity", "at_most", "expected"), [(1, 64, 1), (2, 64, 2), (5, 64, 4), (6, 64, 6), (40, 64, 32), (99, 48, 48)]
)
def test_sizes_are_doubled_until_memory_is_full(capacity: int, at_most: int, expected: int) -> None:
    assert largest_that_fits(lambda n: n <= capacity, at_most, "sample") == expected


def test_a_card_too_small_for_one_image_is_refused() -> None:
    with pytest.raises(UserError, match=r"micro_batch: .* does not hold one image \(gradient\)"):
        largest_that_fits(lambda n: False, 8, "gradient")


def test_decoding_follows_the_rest_unless_it_has_its_own_size() -> None:
    assert given({"sample": 8, "gradient": 4}) == {"sample": 8, "gradient": 4, "decode": 8, "loss": 4}
    assert given({"sample": 8, "gradient": 4, "decode": 2, "loss": 1})["decode"] == 2
    assert set(complete(EVERY).values()) == {AUTO}
    assert [looked_at(it, "cuda") for it in ({"sample": 3}, EVERY)] == [3, LOOKED_AT]
    assert looked_at(EVERY, "cpu") == ON_CPU["sample"]


def test_a_size_is_found_once_per_card_and_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[str, int]] = []

    def probe(pipeline: Any, look: Any) -> Any:
        return lambda kind, n: tried.append((kind, n))

    def simulated(run: Any, device: torch.device) -> bool:
        run()
        return tried[-1][1] <= 12

    monkeypatch.setattr(probing, "fits", simulated)
    monkeypatch.setattr(probing, "Probe", probe)
    monkeypatch.setattr(probing, "_key", lambda kind, pipeline: f"{kind}, {pipeline.card}")
    pipeline: Any = SimpleNamespace(device=GPU, root=tmp_path / "backbone", card="H200")
    assert batch_sizes(EVERY, pipeline, KINDS) == dict.fromkeys(KINDS, 12)
    assert tried[:5] == [("sample", n) for n in (1, 2, 4, 8, 16)]
    tried.clear()
    assert batch_sizes(EVERY | {"decode": 3}, pipeline, KINDS) == dict.fromkeys(KINDS, 12) | {"decode": 3}
    assert not tried
    pipeline.card = "A10"
    batch_sizes(EVERY, pipeline, ["loss"])
    assert tried
    assert remembered(tmp_path / FILE, "loss, A10") == 12
    (tmp_path / FILE).write_text("{")
    assert remembered(tmp_path / FILE, "loss, A10") is None
    remember(tmp_path / FILE, "loss, A10", 2)
    assert remembered(tmp_path / FILE, "loss, A10") == 2


def test_memory_that_is_out_or_nearly_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("empty_cache", "reset_peak_memory_stats", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (90, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 10)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: peaks[-1])
    peaks: list[int] = []

    def fail(error: Exception) -> None:
        raise error

    for peak, expected in ((50, True), (95, False)):
        peaks.append(peak)
        assert fits(lambda: None, GPU) is expected
    assert not fits(lambda: fail(torch.OutOfMemoryError("CUDA out of memory")), GPU)
    assert not fits(lambda: fail(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")), GPU)
    with pytest.raises(RuntimeError, match="shapes"):
        fits(lambda: fail(RuntimeError("shapes differ")), GPU)


def test_on_a_cpu_sizes_are_fixed_and_what_is_probed_runs_and_leaves_no_gradient(tiny_backbone: Path) -> None:
    pipeline = load_pipeline(tiny_backbone)
    assert batch_sizes(EVERY, pipeline, KINDS) == ON_CPU
    attach_adapter(pipeline, ["text_encoder", "unet"], 2, 0, 1)
    probe = Probe(pipeline, seen_by({"clip": RandomEncoder(1)}))
    images: list[int] = []
    hooks = [m.register_forward_pre_hook(lambda _, x: images.append(len(x[0]))) for m in (pipeline.unet,)]
    hooks += [pipeline.vae.decoder.register_forward_pre_hook(lambda _, x: images.append(len(x[0])))]
    for kind in KINDS:
        probe(kind, 3)
    assert images == [6, 6, 6, 3, 3]
    assert all(parameter.grad is None for module in pipeline.modules for parameter in module.parameters())


def test_classification_stays_light() -> None:
    code = "import sys, distalign.diffusion.batch_sizes; print({'torch', 'diffusers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_auto_is_short_for_every_size_and_changes_no_fingerprint() -> None:
    (expand,) = (it for it in Preset.model_fields["micro_batch"].metadata if hasattr(it, "expand"))
    assert expand.expand("auto") == EVERY
    assert expand.expand({"sample": 2, "gradient": AUTO}) == {"sample": 2, "gradient": AUTO}
    assert fingerprint({"a": 1, "micro_batch": EVERY}) == fingerprint({"a": 1, "micro_batch": {"sample": 3}})


def test_pieces_for_several_processes_are_whole_micro_batches_of_any_size(tmp_path: Path) -> None:
    found = {largest_that_fits(lambda n, limit=limit: n <= limit, LARGEST["sample"], "") for limit in range(1, 100)}
    assert found == {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64}
    assert all(MULTIPLE % size == 0 for size in found)
    path = tmp_path / "prompts.json"
    splits = {"train": ["cook"], "validation": ["judge"], "test": ["pilot", "clerk", "guard"]}
    path.write_text(json.dumps({"template": "a {concept}", "splits": splits}))
    spec = {"split": "test", "images_per_prompt": 100}
    assert [len(piece) for piece in pieces({**spec, "micro_batch": {"sample": "auto"}}, path)] == [192, 108]
    assert [len(piece) for piece in pieces({**spec, "micro_batch": {"sample": 128}}, path)] == [128, 128, 44]
