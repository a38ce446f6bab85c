"""The world of a preset: what depends on nothing but it."""

from dataclasses import dataclass
from typing import Any

from distalign.config.attributes import ATTRIBUTES, LABELLED, PAPER_ATTRIBUTES, READER
from distalign.config.models import Preset
from distalign.config.once import once
from distalign.config.specs import drop_none


@dataclass(frozen=True)
class World:
    """Specifications of models, faces and of all that looks at images."""

    preset: Preset

    @once
    def classifier_spec(self, name: str) -> dict[str, Any]:
        """What a classifier depends on: shipped weights, or its training and the data it is trained on."""
        classifier = self.preset.classifiers[name]
        if classifier.weights is not None:
            return drop_none({"labels": classifier.labels, "weights": classifier.weights.model_dump()})
        return self.classifier_training_spec(name)

    def classifier_training_spec(self, name: str) -> dict[str, Any]:
        """What training a classifier depends on, also where ready-made weights are used instead."""
        classifier, preset = self.preset.classifiers[name], self.preset
        datasets = {dataset: self.faces_spec(dataset) for dataset in sorted(set(classifier.labels.values()))}
        vae = preset.backbone.model_dump() if classifier.reconstruct else None
        faces = {"faces": datasets, "chip": preset.chip.model_dump(), "detector": preset.detector.model_dump()}
        return drop_none({**classifier.model_dump(exclude={"weights"}), **faces, "backbone": vae})

    @once
    def faces_spec(self, dataset: str) -> dict[str, Any]:
        """What a face data set depends on."""
        return drop_none({**self.preset.faces[dataset].meaning(), "detector": self.preset.detector.model_dump()})

    def bank_spec(self) -> dict[str, Any]:
        """What the bank of real faces depends on."""
        weights = self.preset.face_embedding.model_dump()
        bank = self._faces_used(self.preset.bank)
        return drop_none({"bank": bank, "face_embedding": weights, "finer": self._finer(self.preset.bank.faces)})

    def reader_spec(self) -> dict[str, Any]:
        """What the labelled faces of the independent reader depend on; empty without one."""
        if self.preset.reader is None:
            return {}
        faces, weights = self.faces_spec(self.preset.reader.faces), self.preset.face_embedding.model_dump()
        finer = self._finer(self.preset.reader.faces)
        return drop_none({"bank": {"faces": faces}, "face_embedding": weights, "finer": finer})

    @once
    def read(self) -> dict[str, list[str]]:
        """The attributes each classifier reads, in the order of ATTRIBUTES; the reader all that its faces have."""
        read = {name: [a for a in ATTRIBUTES if a in it.labels] for name, it in self.preset.classifiers.items()}
        if self.preset.reader is None:
            return read
        labelled = LABELLED[self.preset.faces[self.preset.reader.faces].source]
        return read | {READER: [a for a in (*PAPER_ATTRIBUTES, *self._finer_read()) if a in labelled]}

    @once
    def _generator(self) -> dict[str, Any]:
        preset = self.preset
        return {
            "backbone": preset.backbone.model_dump(),
            "text_padding": preset.text_padding,
            "precision": preset.precision,
            "autocast": preset.autocast,
            "compile": preset.compile or None,
        }

    @once
    def _faces_in_images(self) -> dict[str, Any]:
        return {"detector": self.preset.detector.model_dump(), "chip": self.preset.chip.model_dump()}

    @once
    def _looking(self, classifier: str) -> dict[str, Any]:
        """What looks at images while a method learns."""
        preset = self.preset
        return {
            **self._faces_in_images(),
            "classifier": self.classifier_spec(classifier),
            "encoders": preset.encoders.training.model_dump(),
            "face_embedding": preset.face_embedding.model_dump(),
        }

    @once
    def _finer_read(self) -> list[str]:
        """The attributes besides the paper's that any classifier reads."""
        asked = {attribute for it in self.preset.classifiers.values() for attribute in it.labels}
        return [attribute for attribute in ATTRIBUTES if attribute in asked - PAPER_ATTRIBUTES.keys()]

    def _finer(self, faces: str | None) -> list[str] | None:
        """Those of them that a face data set labels; None for none, so that nothing changes for who asks for none."""
        labelled = LABELLED[self.preset.faces[faces].source] if faces else ()
        return [attribute for attribute in self._finer_read() if attribute in labelled] or None

    def _faces_used(self, user: Any) -> dict[str, Any] | None:
        return user and {**user.model_dump(), "dataset": self.faces_spec(user.faces) if user.faces else None}
