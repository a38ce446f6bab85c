import pyarrow as pa
import pytest

from distalign.errors import UserError
from distalign.measure.agreement import compare, keep
from distalign.measure.compare import main, report
from distalign.store.parquet import RESULTS, read_provenance, read_table, to_table, write_table


def rows(values, width=0.1, run="ours", seed=0, prompt=None):
    """RESULTS rows, one metric for each value."""
    columns = {
        "preset": "mini",
        "run": run,
        "seed": seed,
        "evaluation": "occupations",
        "prompt_id": prompt,
        "classifier": None,
        "std": None,
        "n": 24,
    }
    lines = [
        {**columns, "metric": f"m{index}", "value": value, "low": value - width, "high": value + width}
        for index, value in enumerate(values)
    ]
    return to_table({name: [line[name] for line in lines] for name in RESULTS.names}, RESULTS)


def test_half_widths_that_face_each_other_are_added_as_squares():
    (it,) = compare(rows([1.13], 0.1), rows([1.0], 0.1)).comparisons
    assert it.tolerance == pytest.approx(0.1 * 2**0.5)
    assert it.distance == pytest.approx(0.13 / 0.1414, abs=1e-3)
    skewed = rows([1.0], 0.3).set_column(RESULTS.get_field_index("low"), RESULTS.field("low"), [[0.99]])
    (above,) = compare(skewed, rows([0.8], 0.4)).comparisons  # now above then: .01 below now, .4 above then
    assert above.tolerance == pytest.approx((0.01**2 + 0.4**2) ** 0.5)
    (below,) = compare(rows([0.8], 0.4), skewed).comparisons
    assert below.tolerance == pytest.approx(above.tolerance)


def test_equal_in_print_is_equal():
    agreement = compare(rows([1.0, 0.5], 0), rows([0.996, 0.49], 0))
    assert [it.key[2] for it in agreement.disagreeing] == ["m1"]


def test_as_many_as_by_chance_may_disagree_but_none_by_far():
    reference = rows([0.5] * 100)
    few, many, far = [0.66] * 10, [0.66] * 12, [1.0]
    agreement = compare(rows(few + [0.5] * 90), reference)
    assert (agreement.allowed, len(agreement.disagreeing), agreement.agrees) == (11, 10, True)
    assert not compare(rows(many + [0.5] * 88), reference).agrees
    assert not compare(rows(far + [0.5] * 99), reference).agrees


def test_seeds_are_averaged():
    now = pa.concat_tables([rows([0.4]), rows([0.6], seed=1)])
    (it,) = compare(now, rows([0.5], seed=7)).comparisons
    assert (it.value, it.limits) == (pytest.approx(0.5), pytest.approx((0.4, 0.6)))


def altered(values, **more):
    """Rows of a run that is compared with an original: its first metric is the similarity."""
    table = rows([0.9, *values], 0.01, **more)
    names = ["clip_i", *(f"m{index}" for index in range(len(values)))]
    return table.set_column(RESULTS.get_field_index("metric"), RESULTS.field("metric"), [names])


def test_what_trainings_differ_by_is_allowed():
    trained = [altered([value], seed=seed) for seed, value in enumerate((0.4, 0.5, 0.6))]
    others = [altered([value], run="other", seed=seed) for seed, value in enumerate((0.1, 0.1, 0.1))]
    reference = pa.concat_tables([*trained, *others, altered([0.5], run="single")])
    now = pa.concat_tables([altered([0.7]), altered([0.5], run="single")])
    of = {it.key[0]: it for it in compare(now, reference).comparisons if it.key[2] == "m0"}
    deviation = (0.02 / 4) ** 0.5  # squares .02 and 0, two degrees of freedom each; t(.975, 4) = 2.776
    assert of["ours"].trainings == pytest.approx(2.776 * deviation * (1 + 1 / 3) ** 0.5, rel=1e-3)
    assert of["single"].trainings == pytest.approx(2.776 * deviation * 2**0.5, rel=1e-3)
    assert of["ours"].distance < 1 < abs(0.7 - 0.5) / (0.01 * 2**0.5)


def test_an_original_is_allowed_its_own_noise_only():
    reference = pa.concat_tables([rows([0.5], 0.01, run="plain"), altered([0.1]), altered([0.9], seed=1)])
    (it,) = compare(rows([0.6], 0.01, run="plain"), reference).comparisons
    assert it.trainings == 0
    assert it.distance > 1


def test_what_only_one_has_is_named():
    agreement = compare(rows([0.5, 0.5]), rows([0.5, 0.5, 0.5]))
    assert agreement.missing == (("ours", "occupations", "m2", None),)
    assert "Only in the reference: m2 of ours on occupations." in report(agreement)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UserError, match="no run and metric in common"):
        compare(rows([0.5]), rows([0.5], run="other"))
    other = rows([0.5]).set_column(0, RESULTS.field("preset"), [["smoke"]])
    with pytest.raises(UserError, match="results are of preset smoke, the reference is of preset mini"):
        compare(other, rows([0.5]))


def test_command(tmp_path, capsys):
    results, reference = tmp_path / "results/mini/results.parquet", tmp_path / "resources/reference/mini.parquet"
    write_table(
        results, pa.concat_tables([rows([0.5] * 20), rows([0.1], prompt="chef")]), RESULTS, {"stage": "results"}
    )
    assert main([str(results), str(reference)]) == 1
    assert "there is no reference for this preset" in capsys.readouterr().err
    assert main([str(results), str(reference), "--keep"]) == 0
    kept = read_table(reference, RESULTS)
    assert (kept.num_rows, set(kept["prompt_id"].to_pylist())) == (20, {None})
    provenance = read_provenance(reference)
    assert provenance["stage"] == "results"
    assert len(provenance["kept_from"]["results.parquet"]) == 64
    capsys.readouterr()
    assert main([str(results), str(reference)]) == 0
    assert "20 of 20 agree" in capsys.readouterr().out
    write_table(results, rows([0.5] * 18 + [0.9, 0.1]), RESULTS, {})
    assert main([str(results), str(reference)]) == 1
    printed = capsys.readouterr().out
    assert "18 of 20 agree" in printed
    assert "DO NOT AGREE" in printed
    assert "0.900 [0.800, 1.000]" in printed
    assert main([str(results), str(reference), "--all"]) == 1
    assert capsys.readouterr().out.count("m0") > printed.count("m0")
    write_table(results, rows([0.5], run="other"), RESULTS, {})
    assert main([str(results), str(reference)]) == 1
    assert "no run and metric in common" in capsys.readouterr().err
    assert main([str(tmp_path / "none.parquet"), str(reference)]) == 1
    assert "no such file" in capsys.readouterr().err


def test_nothing_is_kept_of_results_without_whole_runs(tmp_path):
    write_table(tmp_path / "results.parquet", rows([0.5], prompt="chef"), RESULTS, {})
    with pytest.raises(UserError, match="nothing to keep"):
        keep([tmp_path / "results.parquet"], tmp_path / "reference.parquet")


def test_kept_of_several_files_and_beside_what_the_reference_has(tmp_path):
    paper, ablations, reference = (tmp_path / f"{name}.parquet" for name in ("results", "ablations", "reference"))
    write_table(paper, rows([0.1]), RESULTS, {"stage": "results"})
    write_table(ablations, pa.concat_tables([rows([0.9]), rows([0.2], seed=1)]), RESULTS, {"stage": "results"})
    write_table(reference, pa.concat_tables([rows([0.8]), rows([0.3], run="kept")]), RESULTS, {"stage": "old"})
    assert keep([paper, ablations], reference, add=True) == 3
    found = {(row["run"], row["seed"]): row["value"] for row in read_table(reference, RESULTS).to_pylist()}
    assert found == {("ours", 0): 0.1, ("ours", 1): 0.2, ("kept", 0): 0.3}
    provenance = read_provenance(reference)
    assert set(provenance["kept_from"]) == {"results.parquet", "ablations.parquet"}
    assert provenance["added_to"]["stage"] == "old"
    assert keep([paper], reference) == 1
