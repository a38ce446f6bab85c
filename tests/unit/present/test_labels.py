import pytest

from distalign.config.metrics import metric_names
from distalign.present.labels import better, heading, metric_label, number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.234, ".23"),
        (0.0, ".00"),
        (-0.001, ".00"),
        (-0.05, "-.05"),
        (1.0, "1.00"),
        (0.996, "1.00"),
        (12.5, "12.5"),
        (9.994, "9.99"),
        (487.2, "487"),
        (None, ""),
    ],
)
def test_numbers_as_the_paper_prints_them(value, text):
    assert number(value) == text


def test_every_metric_has_a_name():
    labels = [metric_label(metric) for metric in metric_names()]
    assert len(set(labels)) == len(labels)
    assert not [label for label, metric in zip(labels, metric_names(), strict=True) if label == metric]


def test_headings_say_what_is_better():
    assert heading("bias/gender+race") == "G×R bias ↓"
    assert heading("clip_i") == "CLIP-I ↑"
    assert heading("frequency/age=old") == "Freq. age = old"
    assert better("distance/age") == "lower"
