"""The authors' banks of real faces: a plain pickle of a tuple of tensors, read without running anything of it.

(features (M, D), genders (M,), gender logits) of CelebA; of FairFace with races (M,) and race logits behind.
Labels count in the order of `CLASSES`. Features are made unit vectors when they are read, as in the authors' code.
"""

import collections
import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distalign.config.attributes import ATTRIBUTES
from distalign.errors import UserError
from distalign.faces.bank import FaceBank, save_bank
from distalign.released.archive import Archive
from distalign.released.classes import ours

# Our name -> the folder in data.zip.
SOURCES = {
    "celeba": "3-face-features/CelebA_MobileNetLarge_08240859",
    "fairface": "3-face-features/FairFace_MobileNetLarge_GenderRace4_09041634",
}
LABELS = {3: ("gender",), 5: ("gender", "race")}  # by the length of the tuple; each has logits behind it
OTHERWISE = """\
Write it again in the environment it was made in, as tensors; or have a bank computed: `bank: {faces: ...}`.
    bank = pickle.load(open('FILE', 'rb'))
    pickle.dump(tuple(torch.as_tensor(part).cpu() for part in bank), open('FILE', 'wb'))"""


# What makes objects in other ways than by calling a function, or changes them: no pickle of tensors needs it.
REFUSED = {"BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"}


class TensorUnpickler(pickle.Unpickler):
    """Reads a pickle of tensors, tuples, lists, dictionaries, words and numbers.

    All a pickle can call is what `find_class` returns: here two functions of ours, which make tensors of bytes that
    `torch.load` reads as weights only, and OrderedDict, an empty one of which is pickled with every tensor.
    """

    def find_class(self, module: str, name: str) -> Any:
        """What one of the three names stands for.

        Raises:
            UnpicklingError: any other name.
        """
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _numbers
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"{module}.{name} is not admitted")


def convert_bank(name: str, archive: Archive, path: Path) -> None:
    """Convert one of SOURCES to a file as `save_bank` writes it.

    Raises:
        UserError: the bank is missing, damaged, or holds anything but tensors of the right shapes.
    """
    member = archive.find(f"{SOURCES[name]}/face_feats.pkl")
    save_bank(path, read_bank(archive.read(member), f"{archive.path}: {member}"))


def read_bank(data: bytes, source: str) -> FaceBank:
    """A bank from the authors' pickle.

    Raises:
        UserError: as `convert_bank`.
    """
    try:
        if found := REFUSED.intersection(opcode.name for opcode, _, _ in pickletools.genops(data)):
            raise pickle.UnpicklingError(f"it holds other objects than tensors (opcode {min(found)})")
        content = TensorUnpickler(io.BytesIO(data)).load()
    except Exception as error:  # a damaged or hostile file makes of the reader what it likes
        raise UserError(f"{source}: not read: {error or 'it ends too early'}. {OTHERWISE}") from None
    tensors = content if isinstance(content, tuple) and all(isinstance(part, Tensor) for part in content) else ()
    if len(tensors) not in LABELS:
        raise UserError(f"{source}: should be a tuple of 3 or 5 tensors. {OTHERWISE}")
    features = tensors[0]
    if features.dim() != 2 or not features.is_floating_point() or not features.isfinite().all():
        raise UserError(f"{source}: its first tensor should be features (faces, dimensions). {OTHERWISE}")
    labels = {attribute: _labels(tensors[1 + 2 * i], attribute, len(features), source)
              for i, attribute in enumerate(LABELS[len(tensors)])}  # fmt: skip
    return FaceBank(F.normalize(features.float(), dim=1), labels)


def _labels(values: Tensor, attribute: str, count: int, source: str) -> Tensor:
    """Our class indices (M,)."""
    index = values.long()
    classes = len(ATTRIBUTES[attribute])
    if values.shape != (count,) or not (index == values).all() or not ((index >= 0) & (index < classes)).all():
        raise UserError(f"{source}: {attribute} should be {count} whole numbers from 0 to {classes - 1}. {OTHERWISE}")
    return torch.tensor(ours(attribute))[index]


def _numbers(data: Any) -> Tensor:
    """The numbers (n,) that tensors are views of: a storage in the format of `torch.save`."""
    storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(storage, torch.TypedStorage):
        raise pickle.UnpicklingError(f"a {type(storage).__name__} in place of a tensor's numbers is not admitted")
    return torch.empty(0, dtype=storage.dtype).set_(storage)


def _tensor(numbers: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """A view of the numbers, which torch refuses if it reaches beyond them, and we if it repeats them."""
    if math.prod(size) > len(numbers):
        raise pickle.UnpicklingError("a tensor larger than what is stored of it is not admitted")
    return torch.as_strided(numbers, size, stride, offset)
