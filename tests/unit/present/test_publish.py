"""Documentation pages filled from results."""

from pathlib import Path

import pytest

from distalign.config.study import Study, load_study
from distalign.present.costs import as_markdown, table_costs
from distalign.present.publish import publish
from helpers.workflow import first_rows

REPOSITORY = Path(__file__).parents[3]
MEASURING = ("generate_images", "classify_images", "compute_bias")
PAGE = """\
# Results

<!-- shown: tables/one.md -->
what stood here
<!-- /shown -->

Words between.

<!-- shown: claims.md -->
<!-- /shown -->

<!-- shown: costs -->
<!-- /shown -->

![a figure](pictures/sheet.png) ![of no run](pictures/logo.png)
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    results = tmp_path / "results"
    for name, text in (("tables/one.md", "**One**\n\n| a |\n|---|\n"), ("claims.md", "# Claims\n\n## 1. It works\n")):
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text(text)
    (results / "figures").mkdir()
    (results / "figures" / "sheet.png").write_bytes(b"new")
    return results


@pytest.fixture
def page(tmp_path: Path) -> Path:
    page = tmp_path / "docs" / "results.md"
    (page.parent / "pictures").mkdir(parents=True)
    (page.parent / "pictures" / "logo.png").write_bytes(b"logo")
    page.write_text(PAGE)
    return page


def test_places_and_pictures_are_filled_and_words_stay(results: Path, page: Path) -> None:
    shown, left = publish(page, results, "| costs |")
    assert left == []
    assert shown == ["tables/one.md", "claims.md", "costs", "pictures/sheet.png"]
    text = page.read_text()
    assert "what stood here" not in text
    assert "<!-- shown: tables/one.md -->\n\n**One**\n\n| a |\n|---|\n\n<!-- /shown -->\n\nWords between." in text
    assert "\n## Claims\n\n### 1. It works\n" in text
    assert "\n| costs |\n" in text
    assert (page.parent / "pictures" / "sheet.png").read_bytes() == b"new"
    assert (page.parent / "pictures" / "logo.png").read_bytes() == b"logo"


def test_filling_again_changes_nothing(results: Path, page: Path) -> None:
    publish(page, results, "costs")
    once = page.read_text()
    publish(page, results, "costs")
    assert page.read_text() == once


def test_a_result_that_was_not_made_is_named_and_its_place_stays(results: Path, page: Path) -> None:
    (results / "tables/one.md").unlink()
    shown, left = publish(page, results, "costs")
    assert (shown[0], left) == ("claims.md", ["tables/one.md"])
    assert "<!-- shown: tables/one.md -->\nwhat stood here\n<!-- /shown -->" in page.read_text()


@pytest.fixture(scope="module")
def study() -> Study:
    config = first_rows()
    config["tables"] = {
        "first": {
            "title": "First",
            "evaluation": "occupations",
            "columns": ["bias/gender"],
            "rows": [{"run": "original", "label": "Original"}, {"run": "ours_gender", "label": "Ours"}],
        },
        "second": {
            "title": "Second",
            "evaluation": "occupations",
            "columns": ["bias/gender", "kid"],
            "rows": [
                {"run": "original", "label": "Original"},
                {"run": "ours_gender", "label": "Ours", "seeds": [0, 1]},
            ],
        },
    }
    config["figures"] = {}
    return load_study(config, REPOSITORY)


def test_costs_count_every_job_once_and_say_what_a_table_adds(study: Study, tmp_path: Path) -> None:
    def timed(job: str, seconds: float) -> None:
        file = tmp_path / f"{job}.tsv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"s\th:m:s\n{seconds}\t0:00:01\n")

    timed("generate_images/original/0/occupations", 60)
    timed("classify_images/original/0/occupations", 60)
    timed("compute_bias/original/0/occupations", 60)
    assert table_costs(study, tmp_path) == []
    for rule in MEASURING:
        timed(f"{rule}/ours_gender/0/occupations", 30)
        timed(f"{rule}/ours_gender/1/occupations", 30)
    for seed in (0, 1):
        timed(f"finetune/ours_gender/{seed}", 600)
        timed(f"compute_originals/{study.plan_id('ours_gender', seed)}", 120)
    (first,) = table_costs(study, tmp_path)
    assert (first.rows, first.finetunings, first.total, first.added) == (2, 1, 16.5, 16.5)
    for run, seed in (("original", 0), ("ours_gender", 0), ("ours_gender", 1)):
        timed(f"compute_quality/{run}/{seed}/occupations", 6)
    first, second = table_costs(study, tmp_path)
    assert (second.finetunings, second.total) == (2, pytest.approx(30.3))
    assert second.added == pytest.approx(13.8)
    assert "| `second` | 2 | 2 | 30 | 14 |" in as_markdown([first, second])
    assert "| all | | | | 30 |" in as_markdown([first, second])


def test_a_converted_adapter_costs_its_conversion(tmp_path: Path) -> None:
    config = first_rows() | {"figures": {}}
    settings = {"archive": "x.zip", "folder": "y"}
    config["runs"]["released"] = {"method": "released", "align": {"gender": "uniform"}, "settings": settings}
    rows = [{"run": "released"}]
    config["tables"] = {
        "only": {"title": "Only", "evaluation": "occupations", "columns": ["bias/gender"], "rows": rows}
    }
    for rule in ("convert_adapter/released/0", *(f"{it}/released/0/occupations" for it in MEASURING)):
        file = tmp_path / f"{rule}.tsv"
        file.parent.mkdir(parents=True)
        file.write_text("s\th:m:s\n60\t0:01:00\n")
    (cost,) = table_costs(load_study(config, REPOSITORY), tmp_path)
    assert (cost.finetunings, cost.total) == (0, 4)
