"""Claims: mistakes are told as those of config.yaml, and what is not there leaves a claim undecided."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from distalign.config.claims import CLAIMS_FILE, claims_spec, studies_of, trainings
from distalign.config.files import read_yaml
from distalign.config.study import Study, load_study

from .conftest import CONFIG, REPOSITORY, listed

CHECK = {
    "evaluation": "occupations",
    "metric": "bias/gender",
    "value": "ours_gender",
    "minus": "original",
    "below": 0,
}
ALL_MEASURED = {(run, "occupations") for run in CONFIG["runs"]}


def write(root: Path, *checks: Any, **more: Any) -> None:
    claim = {"claim": "It works.", "place": "Abstract", "checks": list(checks), **more}
    (root / CLAIMS_FILE).write_text(yaml.safe_dump({"claims": {"works": claim}}))


def study_of(root: Path, raw: Any, *checks: Any) -> Study:
    write(root, *checks)
    return load_study(raw, root)


def test_all_mistakes_at_once_each_with_the_nearest_name(own_root: Path, raw: dict[str, Any]) -> None:
    write(
        own_root,
        {**CHECK, "metric": "bias/gendr", "evaluation": "ocupations"},
        {**CHECK, "above": 1},
        {**CHECK, "over": "original"},
        {key: value for key, value in CHECK.items() if key not in ("below", "metric")} | {"between": [2, 1]},
        {**CHECK, "value": {"run": "ours_gender", "metrc": "dino"}},
        {**CHECK, "value": {"run": "ours_gender", "metric": "dinno", "classifier": "raeder"}},
        {**CHECK, "metric": None, "value": {"run": "ours_gender", "metric": "dino"}},
        {"training": "original", "metric": "loss/align", "above": 1},
        {"training": "ours_gender", "metric": "loss/aling", "above": 1},
        {"training": "ours_gender", "metric": "loss/align", "window": 0.6, "above": 1},
        {"study": "one_image", "wher": {}, "above": 1},
        {"claims": 1},
        nte="x",
    )
    found = listed(raw, own_root)
    at = "claims.works.checks"
    expected = {
        "claims.works.nte": "unknown key; did you mean 'note'?",
        f"{at}[0].metric": "no metric of this name; did you mean 'bias/gender'?",
        f"{at}[0].evaluation": "no evaluation of this name; did you mean 'occupations'?",
        f"{at}[1]": "needs exactly one of below, above and between, not below and above",
        f"{at}[2]": "has both minus and over: a difference or a ratio, not both",
        f"{at}[3]": "between should be a smaller and a larger number",
        f"{at}[4].value.metrc": "unknown key; did you mean 'metric'?",
        f"{at}[5].value.metric": "no metric of this name; did you mean 'dino'?",
        f"{at}[5].value.classifier": "no classifier of this name; did you mean 'reader'?",
        f"{at}[6].metric": "given neither by the check nor by its quantity",
        f"{at}[7].training": "this run is not trained, so there is no log of its losses",
        f"{at}[8].metric": "did you mean 'loss/align'?",
        f"{at}[9].window": "should be less than or equal to 0.5",
        f"{at}[10].wher": "unknown key; did you mean 'where'?",
        f"{at}[10].where": "this key is missing",
        f"{at}[11].value": "this key is missing",
    }
    for path, message in expected.items():
        assert message in found[path], path
    assert found.keys() - expected.keys() == {f"{at}[11].claims"}


def test_claims_must_be_there(own_root: Path, raw: dict[str, Any]) -> None:
    (own_root / CLAIMS_FILE).unlink()
    assert "cannot be read" in listed(raw, own_root)["the file"]


def test_checks_are_resolved_in_full(own_root: Path, raw: dict[str, Any]) -> None:
    value = {"run": "original", "minus": "ours_race", "factor": 2, "metric": "dino"}
    spec = study_of(own_root, raw, {**CHECK, "value": value}).claims_spec(ALL_MEASURED)
    assert spec["works"] == {
        "claim": "It works.",
        "place": "Abstract",
        "checks": [
            {
                "kind": "results",
                "below": 0,
                "value": {
                    "run": "original",
                    "minus": "ours_race",
                    "factor": 2,
                    "offset": 0,
                    "metric": "dino",
                    "evaluation": "occupations",
                },
                "minus": {
                    "run": "original",
                    "factor": 1,
                    "offset": 0,
                    "metric": "bias/gender",
                    "evaluation": "occupations",
                    "classifier": "evaluation",
                },
            }
        ],
    }


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"minus": "uce_gender"}, "run uce_gender is not in config.yaml"),
        ({"evaluation": "sports"}, "evaluation sports is not in config.yaml"),
        ({"minus": {"run": "original", "minus": "other"}}, "run other is not in config.yaml"),
        ({"value": "ours_race"}, "no table of the paper shows run ours_race on occupations"),
    ],
)
def test_what_is_not_there_is_named(own_root: Path, raw: dict[str, Any], changes: Any, missing: str) -> None:
    spec = study_of(own_root, raw, {**CHECK, **changes}).claims_spec(ALL_MEASURED - {("ours_race", "occupations")})
    assert spec["works"]["checks"][0]["missing"] == missing


def test_training_logs_are_asked_for_where_there_are_any(own_root: Path, raw: dict[str, Any]) -> None:
    checks = [{"training": run, "metric": "loss/align", "above": 1} for run in ("ours_gender", "naive", "ours_race")]
    spec = study_of(own_root, raw, *checks, CHECK).claims_spec([("ours_gender", "occupations")])
    assert trainings(spec) == ["ours_gender"]
    reasons = [check.get("missing") for check in spec["works"]["checks"][1:3]]
    assert reasons == ["run naive is not in config.yaml", "no table of the paper shows run ours_race"]


def test_selections_of_a_gradient_study_are_completed(own_root: Path, raw: dict[str, Any]) -> None:
    where = {"quantity": "loss", "estimator": "exact", "steps": 20}
    check = {"study": "one_image", "where": where, "over": {"estimator": "adjusted"}, "above": 1}
    study = study_of(own_root, raw, check)
    missing = study.claims_spec(ALL_MEASURED)["works"]["checks"][0]["missing"]
    assert missing == "gradient study one_image is not made here"
    spec = claims_spec(study.claims, study.runs, study.evaluations, ALL_MEASURED, ["one_image", "other"])
    assert studies_of(spec) == ["one_image"]
    resolved = spec["works"]["checks"][0]
    assert resolved["value"] == where
    assert resolved["over"] == {"quantity": "loss", "estimator": "adjusted", "steps": 20}
    assert "missing" not in resolved


def test_an_ablation_row_changes_no_claim(own_root: Path, raw: dict[str, Any]) -> None:
    before = load_study(raw, own_root).claims_spec(ALL_MEASURED)
    row = {"run": {"from": "ours_gender", "rank": 3}}
    raw["tables"]["ablation"] = {"title": "A", "evaluation": "occupations", "columns": ["dino"], "rows": [row]}
    assert load_study(raw, own_root).claims_spec(ALL_MEASURED) == before


def test_the_paper_is_covered() -> None:
    claims = read_yaml(REPOSITORY / CLAIMS_FILE)["claims"]
    places = " ".join(claim["place"] for claim in claims.values())
    for place in ("Abstract", "section 4.2", "section 5.1", "Table 1", "Table 2", "Table 5", "Table 6"):
        assert place in places
    sentences = [claim["claim"] for claim in claims.values()]
    assert len(set(sentences)) == len(sentences)
    assert all(sentence.endswith(".") for sentence in sentences)
