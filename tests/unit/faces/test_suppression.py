"""Grouped suppression against the rule written out box by box."""

import pytest
import torch
from torch import Tensor

from distalign.faces.suppression import suppress


def overlap(a: Tensor, b: Tensor, method: str) -> float:
    across = (torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0])).clamp(min=0)
    down = (torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1])).clamp(min=0)
    areas = [float((c[2] - c[0]) * (c[3] - c[1])) for c in (a, b)]
    common = float(across * down)
    return common / (sum(areas) - common if method == "union" else min(areas))


@pytest.mark.parametrize("method", ["union", "min"])
def test_equals_the_rule(method: str) -> None:
    torch.manual_seed(0)
    corner = torch.rand(40, 2) * 20
    boxes = torch.cat([corner, corner + 5 + torch.rand(40, 2) * 10], 1)
    scores, group = torch.rand(40), torch.randint(4, (40,))
    expected = []
    for g in range(4):
        members = sorted((i for i in range(40) if group[i] == g), key=lambda i: -float(scores[i]))
        expected += [
            i
            for rank, i in enumerate(members)
            if not any(overlap(boxes[i], boxes[j], method) > 0.4 for j in members[:rank])
        ]
    assert suppress(boxes, scores, group, 0.4, method).tolist() == expected


def test_nothing_to_suppress() -> None:
    empty = torch.zeros(0)
    assert suppress(empty.view(0, 4), empty, empty.long(), 0.5).tolist() == []
