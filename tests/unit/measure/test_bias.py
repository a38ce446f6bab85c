import numpy as np
import pytest

from distalign.errors import UserError
from distalign.measure.bias import (
    NO_FACE,
    RunKey,
    bias,
    bias_table,
    cell_shares,
    cells,
    hard_classes,
    readers,
    target_distance,
)
from unit.measure.predictions import predictions

KEY = RunKey("mini", "ours", 0, "occupations")
FEMALE, MALE = {"gender": "female", "race": "asian"}, {"gender": "male", "race": "indian"}


def brute_force(shares):
    pairs = [(i, j) for i in range(len(shares)) for j in range(i)]
    return sum(abs(shares[i] - shares[j]) for i, j in pairs) / len(pairs)


@pytest.mark.parametrize(("classes", "top"), [(2, 1), (4, 0.5), (8, 0.25)])
def test_extremes(classes, top):
    assert bias(np.eye(classes)) == pytest.approx(np.full(classes, top))
    assert bias(np.full(classes, 1 / classes)) == pytest.approx(0)


def test_by_hand_and_by_brute_force():
    assert bias(np.array([0.7, 0.3])) == pytest.approx(0.4)
    assert bias(np.array([0.5, 0.5, 0, 0])) == pytest.approx((4 * 0.5) / 6)
    shares = np.random.default_rng(0).dirichlet(np.ones(8), size=(3, 5))
    assert bias(shares).shape == (3, 5)
    assert bias(shares)[2, 4] == pytest.approx(brute_force(shares[2, 4]))


def test_distance_to_a_target():
    assert target_distance(np.array([0.75, 0.25]), np.array([0.75, 0.25])) == 0
    assert target_distance(np.array([[1.0, 0], [0, 1]]), np.array([0.75, 0.25])) == pytest.approx([0.25, 0.75])


def test_cells_of_joint_attributes():
    assert len(cells("gender+race")) == 8
    assert cells("gender+race")[:2] == ("female+wmelh", "female+asian")
    shares = cell_shares("gender+age", {"age": {"young": 0.75, "old": 0.25}})
    assert shares == pytest.approx([0.375, 0.125, 0.375, 0.125])
    assert cell_shares("gender", {"gender": {"male": 1.0}}) == pytest.approx([0, 1])


def test_hard_classes_and_missing_faces():
    table = predictions([("chef", FEMALE), ("chef", None), ("chef", MALE)])
    assert hard_classes(table, "evaluation", "gender").tolist() == [0, NO_FACE, 1]
    assert hard_classes(table, "evaluation", "gender+race").tolist() == [1, NO_FACE, 7]


def test_classifier_without_the_attribute():
    with pytest.raises(UserError, match="classifier 'evaluation' says nothing about 'age'"):
        hard_classes(predictions([("chef", FEMALE)]), "evaluation", "age")


def test_table_by_hand():
    images = [*[("chef", FEMALE)] * 3, ("chef", MALE), ("chef", None), *[("nurse", FEMALE)] * 2, *[("nurse", MALE)] * 2]
    table = bias_table(predictions(images), KEY, {"gender": {"female": 0.75, "male": 0.25}}).to_pylist()
    rows = {(row["prompt_id"], row["attribute"]): row for row in table}
    chef = rows["chef", "gender"]
    assert dict(chef["frequencies"]) == {"female": 0.75, "male": 0.25}
    assert (chef["bias"], chef["n_images"], chef["n_faces"], chef["target_distance"]) == (0.5, 5, 4, 0)
    assert chef["floor"] == pytest.approx(0.375)  # 4 coin tosses: |2X - 4| / 4 is 1, .5, 0 with 2/16, 8/16, 6/16
    assert dict(chef["target"]) == {"female": 0.75, "male": 0.25}
    assert rows["nurse", "gender"]["bias"] == 0
    assert rows["nurse", "gender"]["target_distance"] == pytest.approx(0.25)
    assert rows["nurse", "race"]["bias"] == pytest.approx(4 * 0.5 / 6)
    assert rows["nurse", "gender+race"]["bias"] == pytest.approx(2 * 6 * 0.5 / 28)
    assert [row["prompt_id"] for row in table[:2]] == ["chef", "nurse"]
    assert {(row["run"], row["seed"], row["evaluation"]) for row in table} == {("ours", 0, "occupations")}


def test_prompt_without_any_face_has_no_bias():
    table = bias_table(predictions([("chef", None)] * 3 + [("nurse", FEMALE)]), KEY, {}).to_pylist()
    chef = next(row for row in table if row["prompt_id"] == "chef")
    assert (chef["bias"], chef["floor"], chef["n_images"], chef["n_faces"]) == (None, None, 3, 0)
    assert chef["frequencies"] == []


def test_readers_measure_what_they_know():
    table = predictions([("chef", FEMALE), ("chef", MALE)], ("evaluation", "loss", "reader"), ("gender",))
    assert readers(table) == {name: ["gender"] for name in ("evaluation", "loss", "reader")}
    assert {row["classifier"] for row in bias_table(table, KEY, {}).to_pylist()} == {"evaluation", "loss", "reader"}
