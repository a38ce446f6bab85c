import json
from pathlib import Path

import duckdb
import pytest
import torch
from torch import Tensor

from distalign.classifiers.models import JoinedClassifier, load_classifier
from distalign.config.attributes import PAPER_ATTRIBUTES
from distalign.errors import UserError
from distalign.released.archive import Archive
from distalign.released.classifiers import convert_classifier, read_classifier
from helpers.released import NETWORKS, mobilenet, saved, write_zip

CHIPS = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
# What the authors' code takes of a network's outputs, by the words of the classes they count.
THEIRS = {
    "gender": ("female", "male"),
    "race": ("wmelh", "black", "indian", "asian"),
    "age": ("young", "old"),
}


@torch.no_grad()
def logits(state: dict[str, Tensor]) -> Tensor:
    """Of torchvision's network itself."""
    from torchvision.models import mobilenet_v3_large

    with torch.device("meta"):
        network = mobilenet_v3_large(weights=None)
        network.classifier[3] = torch.nn.Linear(1280, len(state["classifier.3.bias"]))
    network.load_state_dict(state, assign=True)
    return network.eval()(CHIPS)


def check(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for attribute, values in ours.items():
        for index, word in enumerate(PAPER_ATTRIBUTES[attribute]):
            torch.testing.assert_close(values[:, index], theirs[attribute][:, THEIRS[attribute].index(word)])


@pytest.mark.parametrize("outputs", [80, 6, 8])
@torch.no_grad()
def test_logits_are_the_network_s_in_the_order_of_our_classes(outputs: int) -> None:
    state = mobilenet(outputs)
    whole = logits(state)
    if outputs == 80:
        theirs = {"gender": whole.view(2, 40, 2)[:, 20]}
    else:
        theirs = {"gender": whole[:, :2], "race": whole[:, 2:6], "age": whole[:, 6:]}
    theirs = {attribute: values for attribute, values in theirs.items() if values.shape[1]}
    check(read_classifier(state, tuple(theirs), "net.pt")(CHIPS), theirs)


def evaluation_networks() -> dict[str, dict[str, Tensor]]:
    names = [name for name in NETWORKS if name.startswith("5-")]
    return {name: mobilenet(NETWORKS[name], seed) for seed, name in enumerate(names)}


@torch.no_grad()
def test_three_networks_become_one_classifier(tmp_path: Path) -> None:
    states = evaluation_networks()
    archive = write_zip(tmp_path / "data.zip", {f"data/{name}": saved(state) for name, state in states.items()})
    convert_classifier("evaluation", Archive(archive), tmp_path / "evaluation")
    classifier = load_classifier(tmp_path / "evaluation", attributes=["race", "gender", "age"])
    assert isinstance(classifier, JoinedClassifier)
    assert classifier.attributes == ("gender", "race", "age")
    assert (classifier.chip_size, classifier.expand) == (224, 1.5)
    check(classifier(CHIPS), dict(zip(classifier.attributes, map(logits, states.values()), strict=True)))
    card = (tmp_path / "evaluation/card.md").read_text()
    assert "- race: `data/5-trained-test-classifiers/fairface-MobileNetLarge-Race4-09191318/epoch=19" in card
    assert duckdb.sql(f"select count(*) from '{tmp_path}/evaluation/metrics.parquet'").fetchall() == [(0,)]


def test_a_network_that_is_missing_is_named(tmp_path: Path) -> None:
    states = evaluation_networks()
    race = next(name for name in states if "Race4" in name)
    members = {f"data/{name}": saved(state) for name, state in states.items() if name != race}
    archive = Archive(write_zip(tmp_path / "data.zip", members))
    with pytest.raises(UserError, match=r"has no member 5-trained-test-classifiers/fairface-MobileNetLarge-Race4-0919"):
        convert_classifier("evaluation", archive, tmp_path / "evaluation")
    assert not (tmp_path / "evaluation").exists()


def test_another_network_is_refused() -> None:
    state = mobilenet(4)
    with pytest.raises(UserError, match=r"net.pt: has 4 outputs, where gender need 2 outputs or 80"):
        read_classifier(state, ("gender",), "net.pt")
    with pytest.raises(UserError, match=r"net.pt: has 4 outputs, where gender and race need 6 outputs\."):
        read_classifier(state, ("gender", "race"), "net.pt")
    with pytest.raises(UserError, match=r"net.pt: lacks features.0.0.weight"):
        read_classifier({name: it for name, it in state.items() if name != "features.0.0.weight"}, ("race",), "net.pt")
    with pytest.raises(UserError, match=r"net.pt: has unexpected module.extra"):
        read_classifier({**state, "module.extra": torch.ones(1)}, ("race",), "net.pt")
    with pytest.raises(UserError, match=r"net.pt: classifier.0.weight has shape \(9, 960\), where \(1280, 960\)"):
        read_classifier({**state, "classifier.0.weight": torch.ones(9, 960)}, ("race",), "net.pt")


def test_what_is_saved_says_the_classes_in_words(tmp_path: Path) -> None:
    name = next(name for name, outputs in NETWORKS.items() if outputs == 80)
    convert_classifier("celeba", Archive(write_zip(tmp_path / "d.zip", {name: saved(mobilenet(80))})), tmp_path / "c")
    import safetensors

    with safetensors.safe_open(tmp_path / "c/model.safetensors", "pt") as file:
        header = json.loads(file.metadata()["distalign"])
    assert header["classes"] == {"gender": ["female", "male"]}
    assert "parts" not in header
