"""A bank is read as tensors: no pickle, however made, runs anything."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distalign.config.attributes import PAPER_ATTRIBUTES
from distalign.errors import UserError
from distalign.faces.bank import load_bank
from distalign.released.archive import Archive
from distalign.released.bank import _numbers, convert_bank, read_bank
from helpers.released import BANKS, face_features, write_zip

RACES = ("wmelh", "black", "indian", "asian")


class Call:
    """Is unpickled as the result of a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("races", [False, True])
def test_a_bank_is_read(races: bool, protocol: int) -> None:
    content = face_features(races)
    bank = read_bank(pickle.dumps(content, protocol=protocol), "face_feats.pkl")
    torch.testing.assert_close(bank.embeddings, content[0] / content[0].norm(dim=1, keepdim=True))
    assert bank.labels["gender"].tolist() == content[1].tolist()
    assert bank.labels.keys() == ({"gender", "race"} if races else {"gender"})
    if races:
        words = [PAPER_ATTRIBUTES["race"][index] for index in bank.labels["race"]]
        assert words == [RACES[index] for index in content[3]]


def test_views_and_half_precision_are_read() -> None:
    features, genders, logits = face_features(False)
    twice = torch.stack([genders, genders], 1).float()
    bank = read_bank(pickle.dumps((features.T.contiguous().T.half(), twice[:, 1], logits)), "x")
    torch.testing.assert_close(bank.embeddings, torch.nn.functional.normalize(features.half().float(), dim=1))
    assert bank.labels["gender"].tolist() == genders.tolist()


def malicious(mark: Path) -> dict[str, bytes]:
    """Pickles that run a command where they are unpickled, by what they call."""
    command = f"touch {mark}"
    hidden = io.BytesIO()
    torch.save(Call(os.system, command), hidden)  # within what a tensor is made from, where torch unpickles again
    direct = {
        "system": Call(os.system, command),
        "eval": Call(eval, f"__import__('os').system({command!r})"),
        "getattr": Call(getattr, "os", "system"),
        "nested": Call(torch.storage._load_from_bytes, hidden.getvalue()),
        "tensor": Call(torch._utils._rebuild_tensor_v2, Call(os.system, command), 0, (1,), (1,), False, {}),
        "load": Call(torch.load, str(mark)),
    }
    _, genders, logits = face_features(False)
    content = {name: pickle.dumps((call, genders, logits)) for name, call in direct.items()}
    dotted = b"\x80\x04\x8c\x0ctorch._utils\x8c\x0ftorch.os.system\x93\x8c" + bytes([len(command)]) + command.encode()
    return content | {"dotted name": dotted + b"\x85R.", "old": f"cos\nsystem\n(S'{command}'\ntR.".encode()}


def test_nothing_of_a_pickle_is_run(tmp_path: Path) -> None:
    for name, data in malicious(tmp_path / "run").items():
        with pytest.raises(UserError, match=r"face_feats.pkl: not read: ") as caught:
            read_bank(data, "face_feats.pkl")
        assert "torch.as_tensor(part).cpu() for part in bank" in str(caught.value), name
        assert not (tmp_path / "run").exists(), name


def test_the_malicious_pickles_would_run_elsewhere(tmp_path: Path) -> None:
    """So the test above can fail."""
    made = malicious(tmp_path / "run")
    for name in ("system", "eval", "nested", "dotted name", "old"):
        pickle.loads(made[name])
        (tmp_path / "run").unlink()


def test_a_pickle_cannot_change_what_it_is_given() -> None:
    change = b"\x80\x04\x8c\x0dtorch.storage\x8c\x10_load_from_bytes\x93N}\x8c\x0c__defaults__K\x01\x85s\x86b."
    with pytest.raises(UserError, match="opcode BUILD"):
        read_bank(change, "x")
    assert _numbers.__defaults__ is None
    new = b"\x80\x04\x8c\x0bcollections\x8c\x0bOrderedDict\x93)\x81."
    with pytest.raises(UserError, match="opcode NEWOBJ"):
        read_bank(new, "x")


def rebuilt(offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    storage = torch.ones(4).storage()
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, {})


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("view", [(3, (2,), (1,)), (-1, (1,), (1,)), (0, (1 << 40,), (0,)), (0, (2,), (-1,))])
def test_a_tensor_stays_within_its_numbers(view: tuple[int, tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(UserError, match="not read"):
        read_bank(pickle.dumps((rebuilt(*view), torch.ones(4), torch.ones(4, 2))), "x")


def broken(position: int, value: Any, races: bool = False) -> bytes:
    content: list[Any] = list(face_features(races))
    content[position] = value
    return pickle.dumps(tuple(content))


WHOLE = pickle.dumps(face_features(True))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (broken(1, np.arange(8) % 2), r"not read: it holds other objects than tensors \(opcode BUILD\)"),
        (broken(2, torch.nn.Linear(2, 2)), "not read: it holds other objects than tensors"),
        (broken(2, torch.nn.Parameter(torch.ones(8, 2))), r"not read: torch._utils._rebuild_parameter is not admitted"),
        (WHOLE[: len(WHOLE) // 2], "not read"),
        (b"", "not read: "),
        (pickle.dumps(list(face_features(False))), "a tuple of 3 or 5 tensors"),
        (pickle.dumps(face_features(True)[:4]), "a tuple of 3 or 5 tensors"),
        (broken(1, [0, 1] * 4), "a tuple of 3 or 5 tensors"),
        (broken(0, torch.ones(8)), r"features \(faces, dimensions\)"),
        (broken(0, torch.full((8, 6), torch.nan)), r"features \(faces, dimensions\)"),
        (broken(1, torch.arange(7) % 2), "gender should be 8 whole numbers from 0 to 1"),
        (broken(1, torch.arange(8) % 3), "gender should be 8 whole numbers from 0 to 1"),
        (broken(3, torch.full((8,), 0.5), races=True), "race should be 8 whole numbers from 0 to 3"),
        (broken(3, torch.full((8,), -1), races=True), "race should be 8 whole numbers from 0 to 3"),
    ],
)
def test_what_is_wrong_is_named(data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_bank(data, "x")


def test_a_bank_of_an_archive_is_one_of_ours(tmp_path: Path) -> None:
    members = {f"data/{name}": pickle.dumps(face_features(races)) for name, races in BANKS.items()}
    archive = Archive(write_zip(tmp_path / "data.zip", members))
    convert_bank("fairface", archive, tmp_path / "bank.safetensors")
    bank = load_bank(tmp_path / "bank.safetensors")
    wanted: dict[str, Tensor] = {"race": torch.tensor([2]), "age": torch.tensor([1])}  # black; ages it does not know
    nearest = bank.nearest(bank.embeddings[:1], wanted)
    black = bank.embeddings[bank.labels["race"] == PAPER_ATTRIBUTES["race"].index("black")]
    assert any(torch.equal(nearest[0], face) for face in black)
