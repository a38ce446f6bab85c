import math

import numpy as np
import pytest

from distalign.measure.bias import bias, target_distance
from distalign.measure.floor import sampling_floor, target_floor


def test_by_hand():
    assert sampling_floor(1, 2) == pytest.approx(1)  # one image is all of one class
    assert sampling_floor(2, 2) == pytest.approx(0.5)  # differ (0) or agree (1), each half of the time
    assert sampling_floor(3, 2) == pytest.approx(0.25 * 1 + 0.75 / 3)
    assert sampling_floor(1, 4) == pytest.approx(0.5)  # bias of one class out of four
    assert math.isnan(sampling_floor(0, 2))
    assert target_floor(1, (0.75, 0.25)) == pytest.approx(0.75 * 0.25 + 0.25 * 0.75)
    assert math.isnan(target_floor(0, (0.5, 0.5)))


def test_sixty_images_as_in_the_paper():
    assert sampling_floor(60, 2) == pytest.approx(0.10258, abs=1e-5)
    assert sampling_floor(60, 2) == pytest.approx(math.sqrt(2 / (math.pi * 60)), abs=0.001)


@pytest.mark.parametrize(("images", "classes"), [(60, 2), (80, 4), (160, 8), (7, 16)])
def test_against_simulation(images, classes):
    uniform = np.full(classes, 1 / classes)
    drawn = np.random.default_rng(0).multinomial(images, uniform, size=40_000) / images
    assert sampling_floor(images, classes) == pytest.approx(bias(drawn).mean(), rel=0.01)
    assert target_floor(images, tuple(uniform)) == pytest.approx(target_distance(drawn, uniform).mean(), rel=0.01)


def test_uneven_target_against_simulation():
    shares = np.array([0.75, 0.2, 0.05])
    drawn = np.random.default_rng(1).multinomial(40, shares, size=40_000) / 40
    assert target_floor(40, tuple(shares)) == pytest.approx(target_distance(drawn, shares).mean(), rel=0.01)
