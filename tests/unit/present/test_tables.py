import csv
import io
import re
from html.parser import HTMLParser

import duckdb
import pyarrow as pa
import pytest

from distalign.errors import UserError
from distalign.present.formats import as_csv, as_html, as_latex, as_markdown, as_text
from distalign.present.tables import CELLS, build_table, cell_table, write_table_files
from distalign.store.parquet import RESULTS, read_table, to_table

COLUMNS = ["bias/gender", "clip_t", "clip_i"]
VALUES = {
    "original": {"bias/gender": 0.67, "floor/gender": 0.1, "clip_t": 0.31},
    "ours": {"bias/gender": 0.234, "floor/gender": 0.1, "clip_t": 0.3, "clip_i": 0.771},
    "uce_1": {"bias/gender": 0.59, "floor/gender": 0.1, "clip_t": 0.302, "clip_i": 0.9},
}


def result(run, seed, metric, value, std=0.2):
    classifier = "evaluation" if "/" in metric else None
    key = {"preset": "mini", "run": run, "seed": seed, "evaluation": "occupations", "prompt_id": None}
    interval = {"low": value - 0.05, "high": value + 0.05}
    return {**key, "classifier": classifier, "metric": metric, "value": value, "std": std, **interval, "n": 24}


def results(seeds=(0,)):
    rows = [
        result(run, seed, metric, value + 0.1 * seed, 0.3 if seed else 0.4)
        for run, values in VALUES.items()
        for metric, value in values.items()
        for seed in seeds
    ]
    return to_table({name: [row[name] for row in rows] for name in RESULTS.names}, RESULTS)


def spec(seeds=(0,)):
    common = {"seeds": list(seeds), "evaluation": "occupations", "classifier": "evaluation"}
    paper = {"bias/gender": {"mean": 0.23, "std": 0.16}}
    return {
        "title": "Comparison & more",
        "columns": COLUMNS,
        "rows": [
            {"run": "original", "label": "Original", "paper": {}, **common},
            {"run": "ours", "label": "Ours", "group": "Gender", "paper": paper, **common},
            {"run": "uce_1", "label": "UCE_1", "group": "Gender", "paper": {}, **common},
        ],
    }


@pytest.fixture
def table():
    return build_table("comparison", spec(), results())


def test_cells_hold_what_was_measured_and_what_the_paper_says(table):
    cell = table.rows[1].cells[0]
    assert (cell.value, cell.std, cell.prompts, cell.floor) == (0.234, 0.4, 24, 0.1)
    assert (cell.paper, cell.paper_std) == (0.23, 0.16)
    assert table.rows[0].cells[2].value is None
    assert table.has_paper("bias/gender")
    assert not table.has_paper("clip_t")


def test_best_only_within_groups_and_as_printed(table):
    assert [[cell.best for cell in row.cells] for row in table.rows] == [
        [False, False, False],  # alone: nothing to be better than
        [True, False, False],  # clip_t .300 and .302 print alike
        [False, False, True],
    ]


def test_a_column_read_by_another_classifier():
    rows = results().to_pylist()
    other = [{**row, "classifier": "loss", "value": 0.5} for row in rows if row["metric"] == "bias/gender"]
    about = spec() | {"columns": ["bias/gender", "bias/gender@loss"]}
    table = build_table("comparison", about, pa.Table.from_pylist(rows + other, schema=RESULTS))
    assert [cell.value for cell in table.rows[1].cells] == [0.234, 0.5]
    assert [cell.paper for cell in table.rows[1].cells] == [0.23, None]
    assert "Gender bias (loss) ↓" in as_markdown(table)
    lines = cell_table(table).to_pylist()
    assert {(line["metric"], line["classifier"]) for line in lines} == {
        ("bias/gender", "evaluation"), ("bias/gender", "loss"),
    }  # fmt: skip


def test_seeds_together():
    cell = build_table("comparison", spec((0, 1)), results((0, 1))).rows[1].cells[0]
    assert cell.value == pytest.approx(0.284)
    assert cell.std == pytest.approx(0.5 / 2**0.5)
    assert cell.low == pytest.approx(0.234)
    assert cell.seed_std == pytest.approx(0.1 / 2**0.5)
    half = 12.7062 * 0.1 / 2  # Student's t, one degree of freedom
    assert (cell.seed_low, cell.seed_high) == pytest.approx((cell.value - half, cell.value + half), abs=1e-4)


def test_run_without_results_is_named():
    with pytest.raises(
        UserError, match=r"table comparison: no results for run 'original', seed 1.*original \(seed 0, occ"
    ):
        build_table("comparison", spec((0, 1)), results())


def test_markdown(table):
    lines = as_markdown(table).splitlines()
    assert lines[0] == "**Comparison & more**"
    assert re.sub(" +", " ", lines[2]) == "| Group | Method | Gender bias ↓ | paper | CLIP-T ↑ | CLIP-I ↑ |"
    assert re.sub(" +", " ", lines[5]) == (
        "| Gender | Ours | **.23 ± .40** [.18, .28] | .23 ± .16 | .30 ± .40 [.25, .35] | .77 ± .40 [.72, .82] |"
    )
    assert len({len(line) for line in lines[2:7]}) == 1
    assert "perfectly fair generator would score: Gender bias .10." in as_markdown(table)


def test_terminal(table):
    text = as_text(table)
    assert max(map(len, text.splitlines())) <= 120
    assert "Ours (Gender)" in text
    assert "  paper         .23 ± .16" in text


def test_csv(table):
    original, ours, _ = csv.DictReader(io.StringIO(as_csv(table)))
    assert (ours["bias/gender"], ours["bias/gender std"], ours["bias/gender paper"]) == ("0.234", "0.4", "0.23")
    assert (original["clip_i"], original["group"]) == ("", "")


def test_latex(table):
    text = as_latex(table)
    assert r"\caption{Comparison \& more. Mean" in text
    assert r"UCE\_1 & " in text
    assert r"\textbf{.23} {\small $\pm$ .40} & .23 {\small $\pm$ .16}" in text
    columns = len(re.search(r"tabular}\{(l.*)\}", text)[1])
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    cells = []
    for row in (row.replace(r"\&", "") for row in rows):
        spans = [int(span) for span in re.findall(r"multicolumn\{(\d+)", row)]
        cells.append(row.count("&") + 1 - len(spans) + sum(spans))
    assert set(cells) == {columns}
    assert text.count("{") == text.count("}")


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.cells, self.links = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br"):
            self.open.append(tag)
        if tag == "td":
            self.cells.append(dict(attributes).get("data-value"))
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_whole_safe_and_self_contained(table):
    page = Page()
    page.feed(as_html(table))
    assert page.open == []
    assert page.links == []
    assert "Comparison &amp; more" in as_html(table)
    assert as_html(table).count("paper .23 ± .16") == 1
    assert len(page.cells) == 3 * 5
    assert page.cells[7] == "0.234"  # sorted by value, not by text
    assert "light-dark" in as_html(table)
    for tag in ("http:", "https:"):
        assert tag not in as_html(table)


def test_every_format_twice_the_same_bytes(table, tmp_path):
    suffixes = ("parquet", "csv", "md", "tex", "html")
    for folder in ("one", "two"):
        write_table_files(
            table, [tmp_path / folder / f"comparison.{suffix}" for suffix in suffixes], {"stage": "tables"}
        )
    for suffix in suffixes:
        one, two = (tmp_path / folder / f"comparison.{suffix}" for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    assert read_table(tmp_path / "one" / "comparison.parquet", CELLS).equals(cell_table(table))
    query = f"select label, value, paper from '{tmp_path}/one/comparison.parquet' where metric = 'bias/gender'"
    assert duckdb.sql(query).fetchall() == [("Original", 0.67, None), ("Ours", 0.234, 0.23), ("UCE_1", 0.59, None)]


def quality_table(columns):
    more = [
        result("ours", 0, metric, value, None)
        for metric, value in {"kid": 12.3, "floor/kid": -0.02, "fd_dino": 40.5, "floor/fd_dino": 3.25}.items()
    ]
    rows = results().to_pylist() + [{**row, "classifier": None, "n": 1152} for row in more]
    table = to_table({name: [row[name] for row in rows] for name in RESULTS.names}, RESULTS)
    return build_table("components", {**spec(), "columns": columns}, table)


def test_quality_stands_beside_the_rest_with_its_own_floor():
    table = quality_table(["bias/gender", "kid", "fd_dino"])
    cell = table.rows[1].cells[1]
    assert (cell.value, cell.std, cell.floor, cell.prompts) == (12.3, None, -0.02, None)
    assert table.rows[0].cells[1].value is None  # a preset without real pictures
    text = as_text(table)
    assert "over 24 prompts" in text  # and not to 1152
    assert "fair generator would score: Gender bias .10.\n" in text
    assert "KID ×1000 and FD-DINO: all images of a row together" in text
    assert "Other held-out real pictures would score: KID ×1000 -.02, FD-DINO 3.25." in text
    assert "KID ×1000 ↓" in as_markdown(table)


def test_table_of_quality_alone_speaks_of_no_prompts():
    assert "over" not in as_text(quality_table(["fd_dino"])).split("FD-DINO:")[1].partition("together")[0]
    assert "Mean ± standard deviation" not in as_text(quality_table(["fd_dino"]))
