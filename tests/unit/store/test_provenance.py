import hashlib
import json
import platform

from distalign.config.fingerprint import fingerprint
from distalign.store import provenance
from distalign.store.files import read_json
from distalign.store.pretrained import write_record
from distalign.store.provenance import by_place, collect, write_provenance
from distalign.store.stages import ROOT, STAGES


def test_says_what_made_a_file(tmp_path):
    source = tmp_path / "faces.parquet"
    source.write_bytes(b"faces")
    spec = {"rank": 8}
    found = collect("finetune", spec, {"faces": source}, {"train": 4})
    assert found["fingerprint"] == fingerprint(spec)
    assert found["stage_version"] == STAGES["finetune"]
    assert found["inputs"] == {"faces": hashlib.sha256(b"faces").hexdigest()}
    assert found["seeds"] == {"train": 4}
    assert found["versions"]["python"] == platform.python_version()
    assert found["versions"]["pyarrow"]
    write_provenance(tmp_path / "provenance.json", found)
    assert read_json(tmp_path / "provenance.json") == found


def test_same_work_same_provenance_and_no_names_of_places(tmp_path):
    source = tmp_path / "a"
    source.write_bytes(b"1")
    texts = [json.dumps(collect("bias", {"a": 1}, {"images": source})) for _ in range(2)]
    assert texts[0] == texts[1]
    assert str(tmp_path) not in texts[0]
    assert platform.node() not in texts[0]


def test_fetched_models_are_known_by_their_recorded_sums(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights.safetensors").write_bytes(b"weights")

    def found(licence, digest):
        write_record(tmp_path / "model", {"licence": licence}, {"weights.safetensors": digest})
        return collect("generate", {}, {"backbone": tmp_path / "model"})["inputs"]["backbone"]

    assert found("mit", "0" * 64) == found("unknown", "0" * 64) != found("mit", "1" * 64)


def test_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    for cached in (provenance._code, provenance._lock):
        cached.cache_clear()
    found = collect("bias", {})
    assert found["code"] == {"commit": None, "modified": None}
    assert found["lock"] is None
    for cached in (provenance._code, provenance._lock):
        cached.cache_clear()


def test_the_environments_lock_is_known_by_its_hash():
    assert collect("bias", {})["lock"] == hashlib.sha256((ROOT / "envs/requirements.txt").read_bytes()).hexdigest()


def test_inputs_can_be_named_by_their_place_below_the_results():
    files = ["results/mini/bias/ours/0/few.parquet", "results/mini/results.parquet"]
    assert list(by_place(files)) == ["bias/ours/0/few.parquet", "results.parquet"]
