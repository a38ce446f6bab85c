"""The authors' classifiers: state dictionaries of torchvision's MobileNetV3-Large with another last layer.

The outputs of that layer, by their number:

80         40 attributes of CelebA with two each, of which number 20, Male, is gender
6, 8       gender (2), race (4), age (2), or the first two
2, 4       of an evaluation network, one attribute: which one its folder says
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from distalign.classifiers.card import USE
from distalign.classifiers.evaluation import METRICS
from distalign.classifiers.models import Classifier, JoinedClassifier, build_classifier, save_classifier
from distalign.errors import UserError
from distalign.released.archive import Archive
from distalign.released.classes import CLASSES, theirs
from distalign.released.tensors import check_names, check_shape, load_tensors
from distalign.store.files import atomic_directory, atomic_write_text
from distalign.store.parquet import write_table
from distalign.store.provenance import collect

ARCHITECTURE, CHIP_SIZE, EXPAND = "mobilenet_v3_large", 224, 1.5
LAST = "classifier.3"
MALE = 20  # among the attributes of CelebA

# Our name -> the folders of its networks in data.zip, with the attributes each reads.
SOURCES: dict[str, dict[str, tuple[str, ...]]] = {
    "celeba": {"2-trained-classifiers/CelebA_MobileNetLarge_08060852": ("gender",)},
    "fairface": {"2-trained-classifiers/fairface_MobileNetLarge_GenderRace4_09041216": ("gender", "race")},
    "fairface_age": {
        "2-trained-classifiers/fairface_MobileNetLarge_GenderRace4Age2_09151907": ("gender", "race", "age")
    },
    "evaluation": {
        "5-trained-test-classifiers/CelebA-MobileNetLarge-Gender-09191318": ("gender",),
        "5-trained-test-classifiers/fairface-MobileNetLarge-Race4-09191318": ("race",),
        "5-trained-test-classifiers/fairface-MobileNetLarge-Age2-09191319": ("age",),
    },
}


def convert_classifier(name: str, archive: Archive, path: Path) -> None:
    """Convert one of SOURCES; writes model.safetensors, card.md and a metrics.parquet without rows.

    Raises:
        UserError: a network is missing, damaged, or another one than its folder says.
    """
    members = {archive.find(f"{folder}/*.pt"): attributes for folder, attributes in SOURCES[name].items()}
    networks = [
        read_classifier(load_tensors(archive.read(member), f"{archive.path}: {member}"), attributes, member)
        for member, attributes in members.items()
    ]
    provenance = collect("classifiers", {"released": name}, {"archive": archive.path})
    with atomic_directory(path) as made:
        save_classifier(made, networks[0] if len(networks) == 1 else JoinedClassifier(networks))
        write_table(made / "metrics.parquet", {column: [] for column in METRICS.names}, METRICS, provenance)
        atomic_write_text(made / "card.md", _card(members))


def read_classifier(state: Mapping[str, Tensor], attributes: Sequence[str], source: str) -> Classifier:
    """Our classifier from the tensors of the authors' network.

    Raises:
        UserError: a tensor is missing, unexpected, or of another shape.
    """
    classifier = build_classifier(ARCHITECTURE, attributes, CHIP_SIZE, EXPAND)
    last = {side: f"{LAST}.{side}" for side in ("weight", "bias")}
    trunk = classifier.trunk.state_dict()
    check_names(state, [*trunk, *last.values()], source)
    outputs = len(state[last["bias"]])
    for name, tensor in trunk.items():
        check_shape(state[name], tensor.shape, f"{source}: {name}")
    width = classifier.heads.state_dict()[f"{attributes[0]}.weight"].shape[1]
    check_shape(state[last["weight"]], (outputs, width), f"{source}: {last['weight']}")
    rows = _rows(attributes, outputs, source)
    heads = {
        f"heads.{attribute}.{side}": state[name][rows[attribute]]
        for attribute in attributes
        for side, name in last.items()
    }
    classifier.load_state_dict({f"trunk.{name}": state[name] for name in trunk} | heads)
    return classifier.eval()


def _rows(attributes: Sequence[str], outputs: int, source: str) -> dict[str, list[int]]:
    """Which outputs are ours, per attribute in the order of our classes."""
    if attributes == ("gender",) and outputs == 80:
        starts = {"gender": 2 * MALE}
    else:
        sizes = [len(CLASSES[attribute]) for attribute in attributes]
        if outputs != sum(sizes):
            known = f"{sum(sizes)} outputs" + (" or 80" if attributes == ("gender",) else "")
            raise UserError(f"{source}: has {outputs} outputs, where {' and '.join(attributes)} need {known}.")
        starts = {attribute: sum(sizes[:i]) for i, attribute in enumerate(attributes)}
    return {attribute: [start + index for index in theirs(attribute)] for attribute, start in starts.items()}


def _card(members: Mapping[str, Sequence[str]]) -> str:
    lines = ["# Face attribute classifier of the paper's authors", "", USE]
    lines += ["Converted from their data.zip. They published neither its accuracy nor how it was trained.", ""]
    lines += [f"- {' and '.join(attributes)}: `{member}`" for member, attributes in members.items()]
    return "\n".join(lines) + "\n"
