"""The hub's own client against a hub on this machine: what is asked for, verified, resumed, and said when it fails."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distalign.errors import UserError
from distalign.store import hub as module
from distalign.store.hub import fetch, size_in_words
from distalign.store.hub_errors import explained
from distalign.store.pretrained import RECORD, check_record
from distalign.weights import obtain
from helpers import hub as helper
from helpers.hub import REVISION, TOKEN, Hub, Repository, sha256

MODEL = "owner/name"
WEIGHTS = bytes(range(256)) * 40
DINO = {
    "README.md": b"card",
    "config.json": b'{"image_size": 8}',
    "model.safetensors": WEIGHTS,
    "preprocessor_config.json": b"{}",
    "pytorch_model.bin": b"a pickle",
}
NEEDED = ["config.json", "model.safetensors", "preprocessor_config.json"]
SPEC = {"source": "hub", "id": MODEL, "revision": REVISION}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with helper.serve() as hub:
        hub.repositories[MODEL] = Repository(dict(DINO))
        helper.use(monkeypatch, hub, tmp_path / "cache")
        yield hub


def refused() -> str:
    with pytest.raises(UserError) as caught:
        fetch(MODEL, REVISION)
    return str(caught.value)


def test_what_is_needed_is_downloaded_verified_and_recorded(hub: Hub, tmp_path: Path) -> None:
    obtain(SPEC, tmp_path / "out", tmp_path)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*NEEDED, RECORD])
    assert (tmp_path / "out/model.safetensors").read_bytes() == WEIGHTS
    assert (tmp_path / "out/model.safetensors").is_symlink()
    asked = " ".join(hub.downloads())
    assert "README" not in asked
    assert ".bin" not in asked
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert (record["id"], record["revision"], record["licence"]) == (MODEL, REVISION, "mit")
    assert record["files"]["model.safetensors"] == {"bytes": len(WEIGHTS), "sha256": sha256(WEIGHTS)}
    assert check_record(tmp_path / "out", full=True) == len(NEEDED)


def test_licence_size_and_progress_are_told_first(
    hub: Hub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOG_EVERY", 0.0)
    with caplog.at_level(logging.INFO, "distalign"):
        fetch(MODEL, REVISION)
    lines = [record.getMessage() for record in caplog.records if record.name == "distalign.store.hub"]
    assert f"licence: mit. Its terms: {hub.url}/{MODEL}" in lines[0]
    assert lines[1].startswith("3 files, 10.3 kB, of which 10.3 kB are to be downloaded into ")
    assert "3/3: model.safetensors, 10.2 kB" in lines
    assert "10.2 kB of 10.2 kB" in lines


@pytest.mark.parametrize(
    ("licence", "said"), [("openrail", "licence: openrail, to be acc"), (None, "licence: unknown")]
)
def test_licence_is_what_the_card_says(
    hub: Hub, licence: str | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub.repositories[MODEL].licence = licence
    hub.repositories[MODEL].gated = "auto" if licence else False
    with caplog.at_level(logging.INFO, "distalign"):
        fetch(MODEL, REVISION)
    assert said in caplog.text


def test_second_time_downloads_nothing(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    first = fetch(MODEL, REVISION)
    hub.asked.clear()
    with caplog.at_level(logging.INFO, "distalign"):
        assert fetch(MODEL, REVISION) == first
    assert hub.downloads() == []
    assert "of which 0 bytes are to be downloaded" in caplog.text


def test_offline_the_cache_is_enough(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    online = fetch(MODEL, REVISION)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.asked.clear()
    offline = fetch(MODEL, REVISION)
    assert (offline.files, offline.sums) == (online.files, online.sums)
    assert "licence" not in offline.facts
    assert hub.asked == []


def test_offline_the_cache_is_verified_too(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = fetch(MODEL, REVISION).files["model.safetensors"].resolve()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cached.write_bytes(WEIGHTS[::-1])
    assert "model.safetensors: 10240 bytes with checksum" in refused()


def test_offline_without_cache_is_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refused()
    assert "HF_HUB_OFFLINE is set" in message
    assert "snakemake fetch" in message
    assert hub.asked == []


def test_offline_with_half_a_cache_names_what_lacks(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(MODEL, REVISION).files["model.safetensors"].unlink()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refused()
    assert "HF_HUB_OFFLINE is set" in message
    assert "no model.safetensors" in message


@pytest.mark.parametrize("status", [None, 503])
def test_without_a_hub_the_cache_is_enough_and_nothing_else(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    hub.broken = status
    if status is None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert f"answered {status}" if status else "cannot be reached" in refused()
    hub.broken = None
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    online = fetch(MODEL, REVISION)
    hub.broken = status
    if status is None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert fetch(MODEL, REVISION).sums == online.sums


def test_missing_revision_and_missing_repository_are_told_apart(hub: Hub) -> None:
    with pytest.raises(UserError, match="the repository is there, but not this revision"):
        fetch(MODEL, "f" * 40)
    with pytest.raises(UserError, match="no such repository"):
        fetch("owner/nobody", REVISION)


def test_gated_repository_says_what_to_accept(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories[MODEL].token_needed = True
    wanted = f"Accept the licence at {hub.url}/{MODEL} with your account, and set HF_TOKEN"
    assert wanted in refused()
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    message = refused()
    assert wanted in message
    assert "hf_of_somebody_else" not in message


def test_token_opens_a_gated_repository_and_goes_nowhere_else(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    hub.repositories[MODEL].token_needed = True
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with caplog.at_level(logging.DEBUG):
        obtain(SPEC, tmp_path / "out", tmp_path)
    assert TOKEN not in caplog.text
    assert TOKEN not in (tmp_path / "out" / RECORD).read_text()
    senders = {host for _, host, _, header in hub.asked if header == f"Bearer {TOKEN}"}
    assert senders == {"127.0.0.1"}
    assert any(host == "localhost" for _, host, _, _ in hub.asked)


def test_broken_connection_is_resumed_where_it_was(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1024)  # what it keeps; 10 MB otherwise
    hub.cut[sha256(WEIGHTS)] = 1
    assert fetch(MODEL, REVISION).sums["model.safetensors"] == sha256(WEIGHTS)
    ranges = [header for method, host, _, header in hub.asked if (method, host) == ("GET", "localhost")]
    assert ranges == [None, f"bytes={len(WEIGHTS) // 2}-"]


def test_what_was_complete_before_an_interruption_is_kept(hub: Hub) -> None:
    hub.served[sha256(WEIGHTS)] = WEIGHTS[:100]
    assert "model.safetensors came cut off. Run again" in refused()
    hub.served.clear()
    hub.asked.clear()
    fetch(MODEL, REVISION)
    assert hub.downloads() == [f"/cdn/{sha256(WEIGHTS)}"]


def test_file_with_another_checksum_is_refused_by_name(hub: Hub, tmp_path: Path) -> None:
    hub.served[sha256(WEIGHTS)] = WEIGHTS[::-1]
    with pytest.raises(UserError, match=r"model\.safetensors: 10240 bytes with checksum .* but the hub says") as caught:
        obtain(SPEC, tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()
    path = str(caught.value).partition("Delete ")[2].partition(" and run again")[0]
    Path(path).unlink()
    hub.served.clear()
    obtain(SPEC, tmp_path / "out", tmp_path)


def test_small_file_with_another_checksum_is_refused_by_name(hub: Hub) -> None:
    fetch(MODEL, REVISION).files["config.json"].resolve().write_bytes(b'{"image_size": 9}')
    assert "config.json: 17 bytes with checksum" in refused()


def test_other_kinds_of_pipeline_are_refused_before_their_weights_come(hub: Hub) -> None:
    parts = ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model")
    hub.repositories[MODEL].files = {
        "model_index.json": b'{"_class_name": "StableDiffusionXLPipeline", "text_encoder_2": []}',
        "scheduler/scheduler_config.json": b"{}",
        "tokenizer/tokenizer.json": b"{}",
        **{f"{part.partition('/')[0]}/config.json": b"{}" for part in parts},
        **{f"{part}.safetensors": WEIGHTS for part in parts},
    }
    assert "model_index.json says StableDiffusionXLPipeline; only StableDiffusionPipeline" in refused()
    assert hub.downloads() == [f"/{MODEL}/resolve/{REVISION}/model_index.json"]


def test_subfolder_and_variant(hub: Hub, tmp_path: Path) -> None:
    half = WEIGHTS[::2]
    hub.repositories[MODEL].files = {
        "a/config.json": b"{}", "a/model.safetensors": WEIGHTS, "a/model.fp16.safetensors": half, "config.json": b"[]",
    }  # fmt: skip
    obtain({**SPEC, "subfolder": "a", "variant": "fp16"}, tmp_path / "out", tmp_path)
    assert (tmp_path / "out/config.json").read_text() == "{}"
    assert (tmp_path / "out/model.safetensors").read_bytes() == half
    with pytest.raises(UserError, match="no folder b"):
        fetch(MODEL, REVISION, subfolder="b")


def test_full_disk_is_told_before_the_download(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: module.shutil._ntuple_diskusage(100, 95, 5))
    assert "10.3 kB to download, but" in refused()
    assert hub.downloads() == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("Data processing error"), "HF_HUB_DISABLE_XET=1"),
        (OSError(28, "No space left on device"), "could not be put into the cache .*No space left on device"),
        (ConnectionResetError(), "cannot be reached for a file"),
    ],
)
def test_other_failures_have_a_message_too(error: Exception, message: str) -> None:
    with pytest.raises(UserError, match=message), explained(MODEL, REVISION, "a file"):
        raise error


@pytest.mark.parametrize("offline", ["0", "1"])
def test_environment_decides_on_mirror_cache_and_network(tmp_path: Path, offline: str) -> None:
    """In a process of its own: the client reads the environment once, when it is imported."""
    code = f"""
from pathlib import Path
from distalign.errors import UserError
from distalign.weights import obtain
try:
    obtain({SPEC!r}, Path("out"), Path())
    print(Path("out/model.safetensors").resolve())
except UserError as error:
    print(error)
"""
    with helper.serve() as mirror:
        mirror.repositories[MODEL] = Repository(dict(DINO))
        home = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": mirror.url, "HF_HUB_OFFLINE": offline}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
        run = [sys.executable, "-c", code]
        shown = subprocess.run(run, env=inherited | home, cwd=tmp_path, capture_output=True, text=True, check=True)
    if offline == "1":
        assert "HF_HUB_OFFLINE is set" in shown.stdout
        assert mirror.asked == []
    else:
        assert shown.stdout.startswith(str(tmp_path / "home/hub/models--owner--name/blobs"))


def test_sizes_are_words() -> None:
    assert [size_in_words(size) for size in (12, 3_400, 5_460_000, 3_438_167_540)] == [
        "12 bytes", "3.4 kB", "5.46 MB", "3.44 GB",
    ]  # fmt: skip
