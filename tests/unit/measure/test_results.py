import duckdb
import numpy as np
import pytest

from distalign.measure.bias import RunKey, bias_table
from distalign.measure.results import collect_results, run_results, training_seconds
from distalign.store.parquet import BIAS, CLASSIFIED, RESULTS, TRAIN_LOG, read_table, to_table, write_table
from unit.measure.predictions import predictions

KEY = RunKey("mini", "ours", 3, "occupations")
FEMALE, MALE = {"gender": "female"}, {"gender": "male"}
IMAGES = [
    *[("chef", FEMALE)] * 6, *[("chef", MALE)] * 2, *[("chef", None)] * 2,
    *[("nurse", FEMALE)] * 5, *[("nurse", MALE)] * 5,
]  # fmt: skip


def study(images=IMAGES, **columns):
    classified = predictions(images, ("evaluation", "loss"), ("gender",), **columns)
    bias = bias_table(classified, KEY, {})
    return bias, run_results(bias, classified)


def rows_of(results, metric, classifier="evaluation"):
    return {
        row["prompt_id"]: row
        for row in results.to_pylist()
        if (row["metric"], row["classifier"]) == (metric, classifier)
    }


def test_prompts_and_run_by_hand():
    _, results = study()
    rows = rows_of(results, "bias/gender")
    assert rows["chef"]["value"] == pytest.approx(0.5)
    assert (rows["chef"]["n"], rows["nurse"]["n"], rows[None]["n"]) == (8, 10, 2)
    assert rows["nurse"]["value"] == 0
    assert rows[None]["value"] == pytest.approx(0.25)
    assert rows[None]["std"] == pytest.approx(0.5 / np.sqrt(2))
    assert rows[None]["low"] <= 0.25 <= rows[None]["high"]
    assert rows_of(results, "frequency/gender=female")["chef"]["value"] == pytest.approx(0.75)
    assert rows_of(results, "floor/gender")["nurse"]["value"] == pytest.approx(0.24609, abs=1e-5)
    assert rows_of(results, "floor/gender")[None]["low"] is None
    assert rows_of(results, "distance/gender")["chef"]["value"] == pytest.approx(0.25)


def test_metrics_of_images():
    clip = np.concatenate([np.full(10, 0.2), np.full(10, 0.4)])
    readable = [True, False] * 10
    _, results = study(clip_t=clip, concept_readable=readable, dino=[None] * 20)
    rows = rows_of(results, "clip_t", None)
    assert rows["chef"]["value"] == pytest.approx(0.2)
    assert rows["chef"]["std"] == pytest.approx(0, abs=1e-7)
    assert rows[None]["value"] == pytest.approx(0.3)
    assert rows_of(results, "face_found", None)["chef"]["value"] == pytest.approx(0.8)
    assert rows_of(results, "concept_readable", None)[None]["value"] == pytest.approx(0.5)
    assert rows_of(results, "dino", None) == {}


def test_prompt_without_faces_counts_nowhere():
    _, results = study([("chef", None)] * 4 + [("nurse", FEMALE)] * 4)
    rows = rows_of(results, "bias/gender")
    assert (rows["chef"]["value"], rows["chef"]["low"], rows["chef"]["n"]) == (None, None, 0)
    assert (rows[None]["value"], rows[None]["std"], rows[None]["n"]) == (1.0, None, 1)


def test_quality_of_a_run_stands_among_its_results(tmp_path):
    classified = predictions(IMAGES, ("evaluation",), ("gender",))
    bias = bias_table(classified, KEY, {})
    row = {**vars(KEY), "prompt_id": None, "classifier": None, "metric": "kid", "value": 3.5, "std": None}
    row |= {"low": 3.0, "high": 4.0, "n": 20}
    for name, table, schema in (
        ("bias", bias, BIAS),
        ("classified", classified, CLASSIFIED({"evaluation": ["gender"]})),
        ("quality", {name: [value] for name, value in row.items()}, RESULTS),
    ):
        write_table(tmp_path / name, table, schema, {})
    read = {"evaluation": ["gender"]}
    files = [tmp_path / "bias"], [tmp_path / "classified"]
    without, results = (
        collect_results(*files, read),
        collect_results(*files, read, measured=[tmp_path / "quality"]),
    )
    assert rows_of(results, "kid", None) == {None: row}
    assert results.slice(0, without.num_rows).equals(without)


def test_same_input_same_numbers():
    assert study()[1].equals(study()[1])


def test_files_speak_for_themselves_in_duckdb(tmp_path):
    bias, results = study()
    write_table(tmp_path / "ours" / "bias.parquet", bias, BIAS, {})
    write_table(tmp_path / "results.parquet", results, RESULTS, {})
    assert read_table(tmp_path / "results.parquet", RESULTS).equals(results)
    query = f"""select run, prompt_id, frequencies['female'] from '{tmp_path}/**/bias.parquet'
                where classifier = 'evaluation' and attribute = 'gender' order by prompt_id"""
    assert duckdb.sql(query).fetchall() == [("ours", "chef", 0.75), ("ours", "nurse", 0.5)]
    query = f"""select value from '{tmp_path / "results.parquet"}'
                where metric = 'bias/gender' and prompt_id is null and classifier = 'loss'"""
    assert duckdb.sql(query).fetchall() == [(0.25,)]


def test_seconds_of_finetuning(tmp_path):
    log = tmp_path / "mini/runs/ours/3/train_log.parquet"
    log.parent.mkdir(parents=True)
    lines = [(0, "train", "seconds", 2.0), (1, "train", "seconds", 3.5), (1, "train", "loss/align", 9.0)]
    columns = dict(zip(("iteration", "phase", "metric", "value"), map(list, zip(*lines, strict=True)), strict=True))
    write_table(log, to_table({"classifier": [None] * 3, **columns}, TRAIN_LOG), TRAIN_LOG, {})
    rows = [{"run": "original", "seeds": [3], "evaluation": "a"}, {"run": "ours", "seeds": [3, 4], "evaluation": "b"}]
    (row,) = training_seconds(rows, [log]).to_pylist()
    assert (row["preset"], row["run"], row["seed"], row["evaluation"]) == ("mini", "ours", 3, "b")
    assert (row["metric"], row["value"], row["n"]) == ("seconds", 5.5, 2)


def test_a_run_that_was_not_trained_here_has_no_seconds(tmp_path):
    log = tmp_path / "mini/runs/released/0/train_log.parquet"
    write_table(log, to_table({name: [] for name in TRAIN_LOG.names}, TRAIN_LOG), TRAIN_LOG, {})
    assert training_seconds([{"run": "released", "seeds": [0], "evaluation": "a"}], [log]).num_rows == 0


def test_distances_to_a_target_of_the_table():
    classified = predictions(IMAGES, ("evaluation",), ("gender",))
    bias = bias_table(classified, KEY, {"gender": {"female": 0.75, "male": 0.25}})
    own = rows_of(run_results(bias, classified), "distance/gender")
    other = rows_of(run_results(bias, classified, {"gender": {"female": 0.5, "male": 0.5}}), "distance/gender")
    assert (own["chef"]["value"], other["chef"]["value"]) == (0, 0.25)
