import os
from pathlib import Path

import pytest
import torch
from torch import nn

from distalign.errors import UserError
from distalign.released.tensors import check_names, load_tensors
from helpers.released import saved


class Malicious:
    """Runs a command where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False], ids=["today", "before 1.6"])
def test_a_state_dictionary_is_read(zipped: bool) -> None:
    module = nn.BatchNorm1d(3)
    parameters = dict(module.named_parameters())  # with gradients wanted, as the authors saved some
    read = load_tensors(saved(module.state_dict(), _use_new_zipfile_serialization=zipped), "x.pth")
    assert {name: value.tolist() for name, value in read.items()} == {
        name: value.tolist() for name, value in module.state_dict().items()
    }
    assert not any(value.requires_grad for value in load_tensors(saved(parameters), "x.pth").values())


def test_a_module_is_refused_with_the_way_out(tmp_path: Path) -> None:
    for content in (nn.Linear(2, 2), {"weight": Malicious(tmp_path / "run")}):
        with pytest.raises(
            UserError, match=r"net\.pt: holds Python objects beside tensors(?s:.*)module\.state_dict\(\)"
        ):
            load_tensors(saved(content), "net.pt")
    assert not (tmp_path / "run").exists()


def test_what_is_no_file_of_torch_save_is_said_to_be_none() -> None:
    whole = saved(nn.Linear(2, 2).state_dict())
    for content in (whole[: len(whole) // 2], b"", b"<html></html>"):
        with pytest.raises(UserError, match=r"net\.pt: not a complete file of torch\.save"):
            load_tensors(content, "net.pt")


@pytest.mark.parametrize(("content", "kind"), [([torch.ones(2)], "list"), ({"step": 3}, "int as 'step'")])
def test_only_tensors_by_name(content: object, kind: str) -> None:
    with pytest.raises(UserError, match=f"should hold tensors by name, and holds {kind}"):
        load_tensors(saved(content), "net.pt")


def test_names_must_be_exactly_these() -> None:
    check_names(["a", "b"], ["b", "a"], "x")
    with pytest.raises(UserError, match=r"x: lacks b, c, d and 1 more. It should hold exactly 5 tensors"):
        check_names(["a"], ["a", "b", "c", "d", "e"], "x")
    with pytest.raises(UserError, match="x: has unexpected c"):
        check_names(["a", "c"], ["a"], "x")
