from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distalign.alignment.distributed import Group
from distalign.alignment.objective import Objective
from distalign.alignment.originals import OriginalBatch, Originals
from distalign.alignment.plan import Iteration, TrainingPlan
from distalign.alignment.targets import binary_targets
from distalign.diffusion.noise import initial_noise
from distalign.diffusion.pipeline import load_pipeline
from distalign.diffusion.sampler import decode
from distalign.faces.crop import expand_square
from distalign.faces.detector import FaceBatch
from distalign.prompts import load_split
from helpers.finetuning import detect, tiny_judges, tiny_paths, tiny_plan_spec, tiny_spec

GENDER = {"gender": {"female": 0.5, "male": 0.5}}


@pytest.fixture
def world(tiny_backbone: Path, tmp_path: Path) -> dict[str, Any]:
    paths = tiny_paths(tiny_backbone, tmp_path)
    judges = tiny_judges({}, paths, torch.device("cpu"))
    plan = TrainingPlan.from_spec(tiny_plan_spec(), load_split(paths.prompts, "train"))
    originals = Originals(paths.originals, plan, judges.reader.classifier.attributes)
    iteration = plan.iteration(0)
    return {
        "judges": judges,
        "pipeline": load_pipeline(tiny_backbone),
        "iteration": iteration,
        "originals": originals.batch(iteration, slice(0, 4), torch.device("cpu")),
        "z0": initial_noise((4, 4, 4), [1, 2, 3, 4]) * 2,
    }


def cotangent(
    world: dict[str, Any], spec: dict[str, Any], keep_graph: bool = False, scale: float = 1.0
) -> tuple[Tensor, dict[str, float]]:
    judges = world["judges"]
    objective = Objective(spec, world["pipeline"], judges.reader, judges.bank, Group())
    pull = objective.pull(world["z0"], world["originals"], world["iteration"], 0, keep_graph, scale)
    return pull.cotangent, pull.losses


@pytest.mark.parametrize("keep_graph", [False, True])
def test_micro_batches_and_kept_graphs_change_nothing(world: dict[str, Any], keep_graph: bool) -> None:
    reference, losses = cotangent(world, tiny_spec(micro_batch={"sample": 4, "gradient": 4}))
    value, again = cotangent(world, tiny_spec(micro_batch={"sample": 3, "gradient": 3}), keep_graph)
    assert torch.allclose(value, reference, rtol=1e-4, atol=1e-6)
    assert again == pytest.approx(losses, rel=1e-5)
    assert all(loss > 0 for loss in losses.values())


def lose_the_third(images: Tensor) -> FaceBatch:
    """The faces of four images, but for that of the third."""
    faces = detect(images)
    kept = torch.tensor([True, True, False, True])
    return FaceBatch(
        faces.found & kept, faces.boxes * kept[:, None], faces.landmarks * kept[:, None, None], faces.scores * kept
    )


@pytest.mark.parametrize(("lost_face", "preserve"), [(None, None), (3.0, None), (None, 0.7)])
def test_against_the_paper_s_formulas_written_out(
    world: dict[str, Any], lost_face: float | None, preserve: float | None
) -> None:
    """Equations 6 to 8 for gender, image by image and prompt by prompt; and what is beyond the paper."""
    spec = tiny_spec(align=GENDER, micro_batch={"sample": 4, "gradient": 3})
    reader, bank = world["judges"].reader, world["judges"].bank
    originals: OriginalBatch = world["originals"]
    iteration: Iteration = world["iteration"]
    z0 = world["z0"].clone().requires_grad_()
    images = decode(world["pipeline"], z0, 4)
    faces = detect(images.detach())
    prompt = np.array(iteration.prompt_index)
    assert faces.found.all()
    if lost_face is not None:
        spec["loss"] |= {"lost_face": lost_face}
        originals = world["originals"] = replace(originals, found=torch.ones(4, dtype=torch.bool))
        faces = lose_the_third(images.detach())
        world["judges"] = replace(world["judges"], reader=replace(reader, detect=lose_the_third))
    if preserve is not None:
        spec["loss"] |= {"preserve": preserve}
        originals.classes["race"][0] = -1  # as of an original without a face
    total = images.sum() * 0
    for b in range(4):
        mates = np.flatnonzero((prompt == prompt[b]) & faces.found.numpy())
        whole = region = 1.0
        if lost_face is not None and not faces.found[b]:
            whole = lost_face
        if faces.found[b]:
            read = reader.classifier(reader.classifier.chips(images, faces.boxes))
            logits = read["gender"]
            p = logits.softmax(1)[:, 1].detach().numpy()
            q = binary_targets(p[mates], 0.5)[mates.tolist().index(b)]
            target = int(q > 0.5) if max(q, 1 - q) >= spec["confidence"] else -1
            same = target == originals.classes["gender"][b]
            whole, region = (1.0, 1.0) if same else (0.2, 0.2)
            if target >= 0:
                total = total - logits[b].log_softmax(0)[target]
                embedding = reader.embed(images, faces.landmarks)[b]
                own = same and originals.confidence["gender"][b] >= 0.6
                rows = bank.embeddings[bank.labels["gender"] == target]
                reference = originals.face[b] if own else rows[(rows @ embedding.detach()).argmax()]
                total = total + 0.5 * (1 - embedding @ reference)
            if preserve is not None and b > 0:
                total = total - preserve * read["race"][b].log_softmax(0)[originals.classes["race"][b]]
        image = images[b]
        if faces.found[b] and originals.found[b]:
            x1, y1, x2, y2 = (int(v) for v in expand_square(faces.boxes[b], 1.5).round().clamp(0, 16))
            mask = torch.ones(16, 16)
            mask[y1:y2, x1:x2] = region
            image = mask * image + (1 - mask) * image.detach()
        for name, encoder in reader.encoders.items():
            total = total + 2.0 * whole * (1 - encoder.encode_images(image[None])[0] @ originals.features[name][b])
    (expected,) = torch.autograd.grad(total, z0)
    value, losses = cotangent(world, spec)
    assert F.cosine_similarity(value.flatten(), expected.flatten(), dim=0) > 1 - 1e-6
    assert torch.allclose(value, expected, rtol=1e-3, atol=1e-5)
    assert sum(losses.values()) == pytest.approx(total.item(), rel=1e-4)


@pytest.mark.parametrize("lost", [False, True])
def test_batch_mean_against_the_divergence_of_the_mean_in_one_graph(world: dict[str, Any], lost: bool) -> None:
    spec = tiny_spec(targets="batch_mean", micro_batch={"sample": 4, "gradient": 3})
    spec["loss"] |= {"agree": {"gender": 0.1, "race": 0.1}}  # without effect
    reader, originals = world["judges"].reader, world["originals"]
    find = lose_the_third if lost else detect
    world["judges"] = replace(world["judges"], reader=replace(reader, detect=find), bank=None)
    z0 = world["z0"].clone().requires_grad_()
    images = decode(world["pipeline"], z0, 4)
    faces = find(images.detach())
    prompt = torch.tensor(world["iteration"].prompt_index)
    prompt_of_face = prompt[faces.found]
    logits = reader.classifier(reader.classifier.chips(images[faces.found], faces.boxes[faces.found]))
    align = images.sum() * 0
    for attribute, share in spec["align"].items():
        q = torch.tensor(list(share.values()))
        for p in range(2):
            mean = logits[attribute].softmax(1)[prompt_of_face == p].mean(0)
            align = (
                align + 4 / 2 * (mean * (mean / q).log()).sum()
            )  # 4 images, 2 prompts: the mean over prompts is used
    total = align
    for name, encoder in reader.encoders.items():
        total = total + 2.0 * (1 - (encoder.encode_images(images) * originals.features[name]).sum(1)).sum()
    (expected,) = torch.autograd.grad(total, z0)
    for keep_graph in (False, True):
        value, losses = cotangent(world, spec, keep_graph)
        assert torch.allclose(value, expected, rtol=1e-3, atol=1e-5)
        assert losses["loss/align"] == pytest.approx(align.item(), rel=1e-4)
        assert losses["loss/face"] == 0


@dataclass(frozen=True)
class Half(Group):
    """One of two processes; what the other one reads is known."""

    everyone: tuple[np.ndarray, ...] = ()
    seen: list[np.ndarray] = field(default_factory=list)

    def gather(self, values: np.ndarray) -> np.ndarray:
        self.seen.append(values)
        return next(
            whole
            for whole in self.everyone
            if whole.shape[1:] == values.shape[1:] and np.allclose(whole[self.share(4)], values, atol=1e-4)
        )

    def sum(self, tensors: Any) -> None:
        pass


def test_batch_mean_is_over_all_processes(world: dict[str, Any]) -> None:
    spec = tiny_spec(targets="batch_mean", loss=tiny_spec()["loss"] | {"image": 0})
    judges, iteration = world["judges"], replace(world["iteration"], prompt_index=(0, 1, 0, 1))
    world["iteration"] = iteration
    objective = Objective(spec, world["pipeline"], judges.reader, judges.bank, Group())
    whole = objective.pull(world["z0"], world["originals"], iteration, 0, False)
    alone = objective.pull(world["z0"], world["originals"], replace(iteration, prompt_index=(0, 1, 2, 3)), 0, False)
    for rank in range(2):
        group = Half(rank, 2, everyone=tuple(whole.read.values()))
        own = Objective(spec, world["pipeline"], judges.reader, judges.bank, group)
        rows = group.share(4)
        pull = own.pull(world["z0"][rows], _rows(world["originals"], rows), iteration, 0, False)
        assert len(group.seen) == len(whole.read)
        torch.testing.assert_close(pull.cotangent, whole.cotangent[rows], rtol=1e-4, atol=1e-6)
        assert not torch.allclose(pull.cotangent, alone.cotangent[rows], rtol=1e-2, atol=1e-6)


def _rows(originals: OriginalBatch, rows: slice) -> OriginalBatch:
    def part(value: Any) -> Any:
        return {name: own[rows] for name, own in value.items()} if isinstance(value, dict) else value[rows]

    return OriginalBatch(**{name: part(value) for name, value in vars(originals).items()})


def test_the_pull_at_the_same_latents_is_the_same_again(world: dict[str, Any]) -> None:
    judges = world["judges"]
    objective = Objective(tiny_spec(), world["pipeline"], judges.reader, judges.bank, Group())
    pull = objective.pull(world["z0"], world["originals"], world["iteration"], 0, False)
    assert torch.equal(objective.pull_again(world["z0"], pull.guide, world["originals"]), pull.cotangent)
    other = objective.pull_again(world["z0"] + 0.1, pull.guide, world["originals"])
    assert not torch.allclose(other, pull.cotangent)


def test_losses_of_weight_zero_are_not_computed(world: dict[str, Any]) -> None:
    loss = tiny_spec()["loss"] | {"image": 0, "face": 0}
    world["judges"] = type(world["judges"])(
        type(world["judges"].reader)(detect, world["judges"].reader.classifier, None, {}), None, None
    )
    value, losses = cotangent(world, tiny_spec(loss=loss))
    assert losses["loss/image"] == losses["loss/face"] == 0
    assert value.abs().sum() > 0


def test_a_loss_scale_multiplies_the_cotangent_alone(world: dict[str, Any]) -> None:
    reference, losses = cotangent(world, tiny_spec())
    value, again = cotangent(world, tiny_spec(), scale=2.0**14)
    assert torch.equal(value, 2.0**14 * reference)
    assert losses == again
