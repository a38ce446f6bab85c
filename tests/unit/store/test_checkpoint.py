import logging

import pytest
import torch

from distalign.config.fingerprint import fingerprint
from distalign.errors import UserError
from distalign.store import checkpoint
from distalign.store.checkpoint import load_checkpoint, save_checkpoint

SPEC = {"rank": 16, "learning_rate": 1e-3, "align": {"gender": {"female": 0.5, "male": 0.5}}}


def state(step):
    shared = torch.arange(6.0).reshape(2, 3)
    return {
        "weight": shared,
        "transposed": shared.T,
        "half": torch.ones(3, dtype=torch.bfloat16) * step,
        "step": torch.tensor(step),
        "rng/0": torch.get_rng_state(),
    }


def save(directory, step, spec=SPEC, keep=2):
    return save_checkpoint(directory, state(step), {"fingerprint": fingerprint(spec), "spec": spec, "step": step}, keep)


def test_round_trip_of_all_types(tmp_path):
    torch.manual_seed(3)
    save(tmp_path, 5)
    following = torch.rand(4)
    tensors, meta = load_checkpoint(tmp_path, fingerprint(SPEC))
    assert meta["step"] == 5
    assert meta["spec"] == SPEC
    for name, tensor in state(5).items():
        assert tensors[name].dtype == tensor.dtype
        if name != "rng/0":
            assert torch.equal(tensors[name], tensor)
    torch.set_rng_state(tensors["rng/0"])
    assert torch.equal(torch.rand(4), following)


def test_newest_wins_and_old_ones_go(tmp_path):
    for step in range(5):
        save(tmp_path, step)
    assert load_checkpoint(tmp_path, fingerprint(SPEC))[1]["step"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"checkpoint-00000{number}.{kind}" for number in (3, 4) for kind in ("json", "safetensors")
    ]


def test_nothing_there(tmp_path):
    assert load_checkpoint(tmp_path / "none", fingerprint(SPEC)) is None


@pytest.mark.faults
@pytest.mark.injects("checkpoint torn or damaged")
@pytest.mark.parametrize("kind", ["safetensors", "json"])
def test_torn_newest_falls_back(tmp_path, kind, caplog):
    save(tmp_path, 0)
    newest = save(tmp_path, 1).with_suffix(f".{kind}")
    whole = newest.read_bytes()
    for length in {*range(0, len(whole), max(1, len(whole) // 40)), len(whole) - 2}:
        newest.write_bytes(whole[:length])
        assert load_checkpoint(tmp_path, fingerprint(SPEC))[1]["step"] == 0
    for place in range(8, len(whole), max(1, len(whole) // 40)):
        newest.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert load_checkpoint(tmp_path, fingerprint(SPEC))[1]["step"] == 0
    newest.unlink()
    assert load_checkpoint(tmp_path, fingerprint(SPEC))[1]["step"] == 0
    newest.write_bytes(whole)
    assert load_checkpoint(tmp_path, fingerprint(SPEC))[1]["step"] == 1
    assert "checkpoint-000001.json is incomplete or damaged" in caplog.text


@pytest.mark.faults
@pytest.mark.injects("checkpoint torn or damaged")
def test_saving_after_a_torn_one_goes_on(tmp_path):
    save(tmp_path, 0)
    torn = save(tmp_path, 1)
    torn.with_suffix(".safetensors").write_bytes(b"torn")
    save(tmp_path, 2)
    assert load_checkpoint(tmp_path, fingerprint(SPEC))[1]["step"] == 2


def test_other_settings_start_anew_and_are_named(tmp_path, caplog):
    save(tmp_path, 9)
    other = {**SPEC, "rank": 8, "ema_decay": 0.99}
    with caplog.at_level(logging.WARNING):
        assert load_checkpoint(tmp_path, fingerprint(other), other) is None
    assert ": changed rank: 16 → 8, ema_decay: unset → 0.99; training starts anew" in caplog.text
    assert fingerprint(SPEC)[:12] in caplog.text
    save(tmp_path, 0, other)
    assert load_checkpoint(tmp_path, fingerprint(other), other)[1]["step"] == 0


def test_settings_that_differ_are_named_with_their_place(tmp_path, caplog):
    save(tmp_path, 9)
    other = {**SPEC, "align": {"gender": {"female": 0.9, "male": 0.1}}, "micro_batch": {"sample": 2}}
    assert load_checkpoint(tmp_path, fingerprint(other), other) is None
    assert ": changed align.gender.female: 0.5 → 0.9, align.gender.male: 0.5 → 0.1; training" in caplog.text


def test_many_settings_that_differ_are_counted(tmp_path, caplog):
    save(tmp_path, 9)
    other = SPEC | {f"key{number:02d}": number for number in range(20)}
    assert load_checkpoint(tmp_path, fingerprint(other), other) is None
    assert "key11: unset → 11 and 8 more; training" in caplog.text


def test_what_changes_speed_only_is_no_other_setting(tmp_path):
    save(tmp_path, 9)
    faster = {**SPEC, "micro_batch": {"sample": 2}, "checkpoint_every": 5, "autocast": None}
    assert load_checkpoint(tmp_path, fingerprint(faster), faster)[1]["step"] == 9


def test_other_settings_without_stored_spec(tmp_path, caplog):
    save_checkpoint(tmp_path, state(0), {"fingerprint": "a" * 64})
    assert load_checkpoint(tmp_path, "b" * 64, SPEC) is None
    assert "(fingerprint aaaaaaaaaaaa, this run: bbbbbbbbbbbb); training starts anew" in caplog.text


def test_meta_needs_a_fingerprint(tmp_path):
    with pytest.raises(ValueError, match="fingerprint"):
        save_checkpoint(tmp_path, state(0), {})


def test_failure_while_saving_keeps_the_one_before(tmp_path, monkeypatch):
    save(tmp_path, 0)

    def full(path, value):
        raise UserError("the disk is full")

    monkeypatch.setattr(checkpoint, "atomic_write_json", full)
    with pytest.raises(UserError):
        save(tmp_path, 1)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path, fingerprint(SPEC))[1]["step"] == 0
    save(tmp_path, 2)
    assert load_checkpoint(tmp_path, fingerprint(SPEC))[1]["step"] == 2
