"""The benchmark of Stable Diffusion 1.5: what it counts, what it makes of it, and all of it at reduced size."""

import argparse
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def sd15(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import sd15

    return sd15


def test_operations_are_those_counted_by_hand(sd15: ModuleType) -> None:
    images, kernel = torch.randn(2, 3, 10, 10, requires_grad=True), torch.randn(8, 3, 3, 3, requires_grad=True)
    once = 2 * (2 * 8 * 10 * 10) * (3 * 3 * 3)  # multiply and add, for each output and each weight it sees

    def forward() -> torch.Tensor:
        return F.conv2d(images, kernel, padding=1)

    assert sd15.flops(forward) == once
    assert sd15.flops(lambda: forward().sum().backward()) == 3 * once  # and a product for each of the two gradients
    assert sd15.flops(lambda: torch.randn(5, 7) @ torch.randn(7, 11)) == 2 * 5 * 7 * 11
    query, key = torch.randn(3, 2, 16, 8), torch.randn(3, 2, 4, 8)
    assert sd15.flops(lambda: F.scaled_dot_product_attention(query, key, key)) == 2 * (2 * 3 * 2 * 16 * 4 * 8)
    heads = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()
    words = torch.randn(3, 16, 8)
    linear, attention = 2 * (3 * 16) * (8 * 3 * 8 + 8 * 8), 2 * (2 * 3 * 2 * 16 * 16 * 4)
    with torch.no_grad():  # where PyTorch has one operator for all of it
        assert sd15.flops(lambda: heads(words, words, words, need_weights=False)) == linear + attention


def test_shares_ratios_and_goals(sd15: ModuleType) -> None:
    row, reference = sd15.Row("ours", 2.0, 10**12, 3 * 10**9), sd15.Row("released", 5.0, 3 * 10**12, 10**9)
    assert sd15.iteration_line(row, reference, peak=10**12) == "| ours | 2.00 | 3 | 1 | 50% | 2.5 |"
    full = sd15.Row("kept", note="out of memory")
    assert sd15.iteration_line(full, reference, peak=10**12) == "| kept | out of memory | – | – | – | – |"
    bench = argparse.Namespace(device=torch.device("cuda"), options=argparse.Namespace(reduced=False))
    rows = {sd15.ALL_STEPS: row, sd15.QUARTER: full, sd15.RELEASED: reference}
    verdicts = [line.split("|")[-2].strip() for line in sd15.goals(bench, [sd15.Row("images", 0.2)], rows)[2:]]
    assert verdicts == ["not reached", "reached", "not measured", "reached", "not measured"]


def test_out_of_memory_ends_its_row_only(sd15: ModuleType) -> None:
    bench = sd15.Bench(argparse.Namespace(), {}, torch.device("cpu"), {}, None, None)

    def fails() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    assert bench.measure("large", fails).note == "out of memory"
    assert bench.measure("small", lambda: sd15.Row("small", 1.0)).seconds == 1.0
    with pytest.raises(RuntimeError, match="a defect"):
        bench.measure("wrong", lambda: (_ for _ in ()).throw(RuntimeError("a defect")))


def test_every_row_is_there_at_reduced_size(
    sd15: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sd15.py", "--reduced", "--device", "cpu", "--repeat", "1"])
    sd15.main()
    printed = capsys.readouterr().out
    lines = {line.split("|")[1].strip(): line for line in printed.splitlines() if line.startswith("|")}
    for title in (*sd15.ESTIMATORS, sd15.RELEASED, "micro-batches of 2"):
        cells = [cell.strip() for cell in lines[title].split("|")[2:-1]]
        assert float(cells[0]) > 0, title
        assert float(cells[2]) > 0, title
    work = {title: float(lines[title].split("|")[4]) for title in (*sd15.ESTIMATORS, sd15.RELEASED)}
    assert work[sd15.QUARTER] < work["adjusted, kept graphs"] < work[sd15.ALL_STEPS] < work[sd15.RELEASED]
    assert "REDUCED: numbers mean nothing" in printed
    assert printed.count("no card") == len(sd15.GOALS)


def test_at_full_size_a_cpu_is_refused(sd15: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sd15.py", "--device", "cpu"])
    with pytest.raises(SystemExit, match="--reduced"):
        sd15.main()
