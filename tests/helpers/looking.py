"""What looks at images in tests of methods; as a program, a part of sharded images that is looked at by it."""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distalign.alignment.reading import FaceReader
from distalign.methods import fitting, sharding
from helpers.finetuning import RandomEncoder, detect, tiny_reader


class RandomClip(RandomEncoder):
    """Texts as well."""

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        rows = [torch.randn(5, generator=torch.Generator().manual_seed(sum(map(ord, text)))) for text in texts]
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)


def reader(*_: Any) -> FaceReader:
    it = tiny_reader()
    return replace(it, detect=detect, encoders={"clip": RandomClip(2), "dino": it.encoders["dino"]})


if __name__ == "__main__":
    fitting.load_reader = reader
    part = int(sys.argv[2])
    if part and "KILLED" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(sharding.main(Path(sys.argv[1]), part))
