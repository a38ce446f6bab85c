"""Images of one size as compressed bytes, decoded when they are asked for.

The bytes lie in a temporary file without a name (in TMPDIR) that is mapped into memory: the system keeps in memory what
there is room for, and the file is gone with the process.
"""

import mmap
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distalign.errors import UserError
from distalign.store.images import decode_image, image_size

Item = TypeVar("Item")
Result = TypeVar("Result")


class StoredImages:
    """Images (N, 3, H, W) uint8, which are read as a tensor's rows are: `images[index]`.

    Args:
        cells: Bytes of each image.
        name: What messages call the data set.

    Raises:
        UserError: bytes that are not an image, or images of several sizes.
    """

    def __init__(self, cells: Iterable[bytes], name: str) -> None:
        self.name = name
        ends, sizes = [0], set()
        with tempfile.TemporaryFile() as file:
            for cell in cells:
                sizes.add(self._named(image_size, cell))
                file.write(cell)
                ends.append(ends[-1] + len(cell))
            file.flush()
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if ends[-1] else b""
        if len(sizes) > 1:
            raise UserError(f"{name}: images of several sizes (from {min(sizes)} to {max(sizes)}); bring them to one.")
        self.height, self.width = sizes.pop() if sizes else (0, 0)
        self._ends = np.array(ends)
        self._rows = np.arange(len(ends) - 1)
        self._pool = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="decode")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, 3, H, W)."""
        return len(self), 3, self.height, self.width

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Images (n, 3, H, W) uint8 of the rows `index` (n,)."""
        rows = self._rows[index.numpy()]
        result = np.empty((len(rows), self.height, self.width, 3), np.uint8)

        def decode(place: int) -> None:
            result[place] = self._decoded(rows[place])

        list(self._pool.map(decode, range(len(rows))))
        return torch.from_numpy(result).permute(0, 3, 1, 2).contiguous()

    def first(self, count: int) -> "StoredImages":
        """The first so many images; the bytes are shared."""
        images = object.__new__(StoredImages)
        images.__dict__.update(self.__dict__, _rows=self._rows[:count])
        return images

    def _decoded(self, row: int) -> NDArray[np.uint8]:
        return self._named(decode_image, self._bytes[self._ends[row] : self._ends[row + 1]])

    def _named(self, function: Callable[[bytes], Result], cell: bytes) -> Result:
        try:
            return function(cell)
        except UserError as error:
            raise UserError(f"{self.name}: {error}.") from None


def in_advance(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
    """Each item with `function(item)`; that of the next item is computed in a thread while the caller has this one."""
    with ThreadPoolExecutor(1, thread_name_prefix="in_advance") as pool:
        waiting = None
        for item in items:
            following = (item, pool.submit(function, item))
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting is not None:
            yield waiting[0], waiting[1].result()
