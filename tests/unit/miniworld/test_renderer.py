"""Rendered portraits: reproducible, independent of their batch, seen by a real face detector."""

from pathlib import Path

import numpy as np
import pytest
import torch

from distalign.faces.detector import Detector
from distalign.miniworld.people import MALE, People, Scene
from distalign.miniworld.pictures import draw_pictures, load_pictures, save_pictures
from distalign.miniworld.renderer import contact_sheet, render
from distalign.miniworld.scenes import draw_identities, draw_scene, random_looks


def _portraits(n: int, seed: int) -> tuple[People, Scene]:
    rng = np.random.default_rng(seed)
    people = draw_identities(n, rng)
    return people, draw_scene(random_looks(n, rng), people, np.zeros(n, np.int64), rng)


def test_a_portrait_does_not_depend_on_its_batch() -> None:
    """The same person in another batch, in another place, is the same picture."""
    people, scene = _portraits(7, seed=3)
    together = render(people, scene, chunk=64)
    index = np.array([5, 1])
    assert together.shape == (7, 3, 64, 64) and together.dtype == torch.uint8
    assert torch.equal(render(people.take(index), scene.take(index), chunk=1), together[index])


def test_the_real_detector_finds_rendered_faces() -> None:
    """At least 97 of 100, at the detector's own thresholds on 128 pixels, and no group is left behind."""
    people, scene = _portraits(400, seed=5)
    images = render(people, scene).float() / 127.5 - 1
    found = np.array([len(f) > 0 for f in Detector(min_face=24, scale=2).detect(images)])
    assert found.mean() >= 0.97
    for race in range(4):
        for gender in range(2):
            assert found[(people.race == race) & (people.gender == gender)].mean() >= 0.93


def test_labels_show_in_the_pixels_of_every_group() -> None:
    """Beards only where drawn, skin lighter or darker by group, yet with overlap inside each."""
    people, _ = _portraits(2000, seed=1)
    assert not people.beard[people.gender != MALE].any()
    brightness = [people.skin[people.race == r].mean() for r in range(4)]
    assert brightness[2] < brightness[3] < brightness[0]
    for race in range(4):
        assert people.skin[people.race == race].mean(1).std() > 0.03


def test_pictures_are_a_function_of_their_seed(tmp_path: Path) -> None:
    """Same seed, same pictures and captions; they survive the disk."""
    first, again = draw_pictures(24, seed=2), draw_pictures(24, seed=2)
    assert torch.equal(first.images, again.images) and first.captions == again.captions
    assert not torch.equal(first.images, draw_pictures(24, seed=3).images)
    save_pictures(first, tmp_path)
    loaded = load_pictures(tmp_path)
    assert torch.equal(loaded.images, first.images) and loaded.captions == first.captions
    assert loaded.labels["race"] == pytest.approx(first.labels["race"])


def test_contact_sheet_fills_the_last_row_with_white() -> None:
    """Five pictures in two columns make three rows."""
    sheet = contact_sheet(torch.zeros(5, 3, 4, 6, dtype=torch.uint8), columns=2)
    assert sheet.shape == (12, 12, 3)
    assert sheet[:8].max() == 0 and sheet[8:, 6:].min() == 255
