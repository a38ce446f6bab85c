"""A bundle of results: complete, the same whenever it is made, without secrets, and checked to the last byte."""

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distalign.__main__ import main
from distalign.exclusive import claim
from distalign.store.archives import extract
from distalign.store.files import TIMESTAMP, read_json, sha256_file

RESULTS = Path("results/mini")
TOKEN = "planted-0123456789abcdef"
Verb = Callable[..., str]


@pytest.fixture
def distalign(clone: Path, capsys: pytest.CaptureFixture[str]) -> Verb:
    """Run a verb and return what it printed, messages included."""

    def run(*arguments: str | Path, status: int = 0) -> str:
        assert main(list(map(str, arguments))) == status
        printed = capsys.readouterr()
        return printed.out + printed.err

    return run


@pytest.fixture
def bundle(distalign: Verb, tmp_path: Path) -> Path:
    """A bundle as it should be."""
    path = tmp_path / "bundle.tar.gz"
    distalign("archive", RESULTS, "-o", path)
    return path


def names(path: Path) -> list[str]:
    with tarfile.open(path) as opened:
        return opened.getnames()


def repack(path: Path, change: Callable[[tarfile.TarInfo, bytes], Any], *more: tarfile.TarInfo) -> None:
    """Write a bundle anew with every member as `change` returns it (None: left out), and more at its end."""
    with tarfile.open(path) as opened:
        members = [(info, opened.extractfile(info).read()) for info in opened]  # type: ignore[union-attr]
    with tarfile.open(path, "w:gz") as opened:
        for info, data in members:
            data = change(info, data)
            if data is not None:
                info.size = len(data)
                opened.addfile(info, io.BytesIO(data))
        for info in more:
            opened.addfile(info, io.BytesIO(bytes(info.size)))


def test_a_bundle_holds_what_it_should(bundle: Path, tmp_path: Path) -> None:
    found = names(bundle)
    assert found[0] == "distalign-mini/MANIFEST.json"
    for place in (
        "README.md", "config.yaml", "presets/mini.yaml", "envs/requirements.txt",
        "resources/prompts/mini_occupations.json",
        "results/mini/results.parquet", "results/mini/tables/headline.md", "results/mini/figures/frequencies.png",
        "results/mini/runs/ours_gender/0/adapter/pytorch_lora_weights.safetensors",
        "results/mini/runs/ours_gender/0/provenance.json", "results/mini/bias/original/0/occupations.parquet",
        "results/mini/logs/finetune/ours_gender/0.usage.json",
    ):  # fmt: skip
        assert f"distalign-mini/{place}" in found
    assert not [name for name in found if "/images/" in name or name.endswith((".log", TIMESTAMP))]
    extract(bundle, tmp_path / "out", 1 << 30)
    unpacked = tmp_path / "out/distalign-mini"
    files = read_json(unpacked / "MANIFEST.json")["files"]
    assert {f"distalign-mini/{name}" for name in [*files, "MANIFEST.json"]} == set(found)
    assert all(sha256_file(unpacked / name) == entry["sha256"] for name, entry in files.items())
    readme = (unpacked / "README.md").read_text()
    assert "Tables: headline." in readme
    assert "snakemake --cores all --config preset=mini" in readme
    assert "Had not been made, so not in here: claims.*" in readme


def test_a_bundle_explains_itself(distalign: Verb, bundle: Path, tmp_path: Path, monkeypatch: Any) -> None:
    extract(bundle, tmp_path / "out", 1 << 30)
    monkeypatch.chdir(tmp_path / "out/distalign-mini")
    text = distalign("explain", "results/mini/tables/headline.md", "--row", "2", "--column", "bias/gender")
    assert "Computed again from the files below: the same." in text
    assert "CHANGED" not in text
    assert "not here" in text  # the images


def test_the_same_results_give_the_same_bytes(distalign: Verb, bundle: Path, tmp_path: Path, clone: Path) -> None:
    os.utime(RESULTS / "results.parquet", (1, 1))
    (RESULTS / "tables/headline.md").chmod(0o600)
    distalign("archive", RESULTS, "-o", tmp_path / "again.tar.gz")
    shutil.copytree(clone, tmp_path / "elsewhere", symlinks=True)
    distalign("archive", tmp_path / "elsewhere" / RESULTS, "-o", tmp_path / "third.tar.gz")
    assert bundle.read_bytes() == (tmp_path / "again.tar.gz").read_bytes() == (tmp_path / "third.tar.gz").read_bytes()
    with tarfile.open(bundle) as opened:
        assert {(it.mtime, it.uid, it.gid, it.uname, it.mode) for it in opened} == {(0, 0, 0, "", 0o644)}


def test_images_if_asked_for(distalign: Verb, tmp_path: Path) -> None:
    distalign("archive", RESULTS, "-o", tmp_path / "b.tar.gz", "--images")
    assert "distalign-mini/results/mini/images/original/0/occupations.parquet" in names(tmp_path / "b.tar.gz")
    assert "all as the manifest says" in distalign("verify", tmp_path / "b.tar.gz")


def test_the_default_name(distalign: Verb) -> None:
    assert "distalign-mini.tar.gz: " in distalign("archive", RESULTS)
    assert Path("distalign-mini.tar.gz").is_file()


def test_results_that_are_not_there(distalign: Verb) -> None:
    text = distalign("archive", "results/smoke", status=2)
    assert (
        "results/smoke: no tables there to pack. Make them first: `snakemake --cores all --config preset=smoke`" in text
    )
    shutil.rmtree(RESULTS / "bias")
    text = distalign("archive", RESULTS, status=2)
    assert "was made from bias/original/0/occupations.parquet, which is not here. Make the table again first" in text
    assert not list(Path().glob("*.tar.gz"))


def test_tables_of_other_files_are_refused(distalign: Verb) -> None:
    path = RESULTS / "bias/ours_gender/0/occupations.parquet"
    path.write_bytes((RESULTS / "bias/original/0/occupations.parquet").read_bytes())
    text = distalign("archive", RESULTS, status=2)
    assert "bias/ours_gender/0/occupations.parquet, which is changed since" in text


def test_tables_of_another_configuration_are_named(distalign: Verb, tmp_path: Path) -> None:
    config = Path("config.yaml")
    config.write_text(config.read_text().replace("title: A table", "title: Another"))
    text = distalign("archive", RESULTS, "-o", tmp_path / "b.tar.gz")
    assert "not as config.yaml says now: tables/headline.parquet" in text
    extract(tmp_path / "b.tar.gz", tmp_path / "out", 1 << 30)
    assert (
        "Made with other settings than config.yaml has now" in (tmp_path / "out/distalign-mini/README.md").read_text()
    )


def test_results_that_are_being_made(distalign: Verb) -> None:
    with claim(RESULTS):
        assert "results/mini" in distalign("archive", RESULTS, status=2)


@pytest.mark.parametrize("place", ["config.yaml", "results/mini/tables/headline.md", "results/mini/results.parquet"])
def test_secrets_of_the_environment_are_not_packed(
    distalign: Verb, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    path = Path(place)
    if path.suffix == ".yaml":
        path.write_text(path.read_text().replace("title: A table", f"title: {TOKEN}"))
    else:
        path.write_bytes(path.read_bytes() + TOKEN.encode())
    text = distalign("archive", RESULTS, "-o", tmp_path / "b.tar.gz", status=2)
    assert "HF_TOKEN" in text
    assert TOKEN not in text
    assert not (tmp_path / "b.tar.gz").exists()


def test_the_environment_is_not_packed(distalign: Verb, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    distalign("archive", RESULTS, "-o", tmp_path / "b.tar.gz")
    assert TOKEN.encode() not in gzip.decompress((tmp_path / "b.tar.gz").read_bytes())


def test_what_looks_like_a_token_is_not_packed(distalign: Verb, tmp_path: Path) -> None:
    Path("presets/mini.yaml").write_text(Path("presets/mini.yaml").read_text() + "\n# hf_" + "a1B2" * 8)
    text = distalign("archive", RESULTS, "-o", tmp_path / "b.tar.gz", status=2)
    assert "presets/mini.yaml: line " in text
    assert "hf_a1B2" not in text


def test_a_whole_bundle_is_verified(distalign: Verb, bundle: Path) -> None:
    text = distalign("verify", bundle)
    assert f"{len(names(bundle))} files" in text
    assert hashlib.sha256(bundle.read_bytes()).hexdigest() in text


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.5, 0.95, -1, -9])
def test_a_truncated_bundle(distalign: Verb, bundle: Path, kept: float) -> None:
    data = bundle.read_bytes()
    bundle.write_bytes(data[: int(kept) if kept < 0 else int(len(data) * kept)])
    assert "not a complete zip or tar file" in distalign("verify", bundle, status=1)


def test_a_flipped_byte_anywhere(distalign: Verb, bundle: Path) -> None:
    data = bundle.read_bytes()
    for place in range(4, len(data), len(data) // 15):
        if place < 10:  # time, flags and system in gzip's header change no content
            continue
        bundle.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        distalign("verify", bundle, status=1)


def test_other_content_a_missing_file_and_one_too_many(distalign: Verb, bundle: Path) -> None:
    def change(info: tarfile.TarInfo, data: bytes) -> bytes | None:
        if info.name.endswith("headline.md"):
            return data.replace(b"1.00", b"0.00")
        if info.name.endswith("headline.csv"):
            return data + b"\n"
        return None if info.name.endswith("config.yaml") else data

    more = tarfile.TarInfo("distalign-mini/results/mini/more.txt")
    repack(bundle, change, more)
    text = distalign("verify", bundle, status=1)
    place = "distalign-mini/results/mini/tables/headline"
    assert f"{place}.md: its SHA-256 is not the manifest's" in text
    assert f"{place}.csv: " in text
    assert "bytes instead of" in text
    assert "config.yaml: missing" in text
    assert "more.txt: not in the manifest" in text
    assert "4 of" in text


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        (member("../evil"), "a path that leads out of it"),
        (member("/etc/evil"), "a path that leads out of it"),
        (member("distalign-mini/x", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link or a device"),
        (member("distalign-mini/x", type=tarfile.LNKTYPE, linkname="distalign-mini/config.yaml"), "is a link"),
        (member("distalign-mini/config.yaml"), "twice"),
        (member("distalign-mini/zeros", size=1 << 25), "unpacked it has more than the"),
    ],
)
def test_slips_links_twins_and_bombs_are_refused(
    distalign: Verb, bundle: Path, tmp_path: Path, odd: tarfile.TarInfo, says: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    repack(bundle, lambda info, data: data, odd)
    assert says in distalign("verify", bundle, status=1)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_manifest_that_claims_too_much(distalign: Verb, bundle: Path) -> None:
    def change(info: tarfile.TarInfo, data: bytes) -> bytes:
        if not info.name.endswith("MANIFEST.json"):
            return data
        content = json.loads(data)
        content["files"]["zeros"] = {"bytes": 10**13, "sha256": "0" * 64}
        return json.dumps(content).encode()

    repack(bundle, change)
    assert "more than 200 GB. Allow more with --most" in distalign("verify", bundle, status=1)


def test_data_behind_the_last_file(distalign: Verb, bundle: Path) -> None:
    plain = gzip.decompress(bundle.read_bytes())
    bundle.write_bytes(gzip.compress(plain + b"hidden"))
    assert "holds data behind its last member" in distalign("verify", bundle, status=1)


@pytest.mark.parametrize(
    "manifest",
    [b"", b"[]", b"{}", b'{"distalign_bundle": 1}', b'{"distalign_bundle": 1, "files": {"a": 1}}',
     b'{"distalign_bundle": 1, "files": {"a": {"bytes": -1, "sha256": ""}}}', b'{"distalign_bundle": 2, "files": {}}'],
)  # fmt: skip
def test_a_manifest_that_is_none(distalign: Verb, bundle: Path, manifest: bytes) -> None:
    repack(bundle, lambda info, data: manifest if info.name.endswith("MANIFEST.json") else data)
    text = distalign("verify", bundle, status=1)
    assert "its MANIFEST.json is damaged" in text or "a bundle of format 2" in text


def test_files_that_are_no_bundle(distalign: Verb, tmp_path: Path) -> None:
    assert "not a complete zip or tar file" in distalign("verify", "config.yaml", status=1)
    with tarfile.open(tmp_path / "other.tar", "w") as opened:
        opened.add("config.yaml")
    assert "it begins with 'config.yaml'" in distalign("verify", tmp_path / "other.tar", status=1)
    assert "nothing: no such file" in distalign("verify", "nothing", status=2)
