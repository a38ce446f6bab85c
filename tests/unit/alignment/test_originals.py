from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from distalign.alignment.originals import Originals
from distalign.alignment.plan import TrainingPlan
from distalign.alignment.reading import class_probabilities
from distalign.diffusion.pipeline import load_pipeline
from distalign.diffusion.sampler import generate
from distalign.errors import UserError
from distalign.prompts import load_split
from helpers.finetuning import tiny_paths, tiny_plan_spec, tiny_reader

CPU = torch.device("cpu")


def test_originals_are_what_the_frozen_model_makes(tiny_backbone: Path, tmp_path: Path) -> None:
    paths = tiny_paths(tiny_backbone, tmp_path)
    spec = tiny_plan_spec()
    plan = TrainingPlan.from_spec(spec, load_split(paths.prompts, "train"))
    reader = tiny_reader()
    attributes = reader.classifier.attributes
    iteration = plan.iteration(1)
    texts = [iteration.prompts[p].text for p in iteration.prompt_index]
    images = generate(load_pipeline(tiny_backbone), texts, iteration.noise_seeds, iteration.steps, 3.0, 4)
    faces = reader.detect(images)

    originals = Originals(paths.originals, plan, attributes)
    batch = originals.batch(plan.iteration(4), slice(1, 4), CPU)  # the period is 3

    assert torch.equal(batch.found, faces.found[1:])
    assert torch.allclose(batch.boxes, faces.boxes[1:])
    for attribute, values in class_probabilities(reader.classifier, images, faces).items():
        expected = torch.where(faces.found, values.argmax(1), -1)
        assert torch.equal(batch.classes[attribute], expected[1:])
        assert torch.allclose(batch.confidence[attribute], values.max(1).values[1:], atol=1e-4)
    assert torch.allclose(batch.features["clip"], reader.encoders["clip"].encode_images(images)[1:], atol=1e-4)
    seen = reader.embed(images, faces.landmarks) * faces.found[:, None]
    assert torch.allclose(batch.face, seen[1:], atol=1e-4)


def test_without_a_face_columns_are_null(tiny_backbone: Path, tmp_path: Path) -> None:
    paths = tiny_paths(tiny_backbone, tmp_path)
    table = pq.read_table(paths.originals).to_pandas()
    assert len(table) == 3 * 4
    missing = table[~table["found"]]
    assert missing[["x1", "landmarks", "gender=male", "face"]].isna().all(axis=None)
    assert table[table["found"]].notna().all(axis=None)
    assert table[["clip", "dino", "noise_seed"]].notna().all(axis=None)


def test_originals_of_another_plan_are_refused(tiny_backbone: Path, tmp_path: Path) -> None:
    paths = tiny_paths(tiny_backbone, tmp_path)
    plan = TrainingPlan.from_spec(tiny_plan_spec(seed=4), load_split(paths.prompts, "train"))
    with pytest.raises(UserError, match="of another plan"):
        Originals(paths.originals, plan, ("gender", "race"))
