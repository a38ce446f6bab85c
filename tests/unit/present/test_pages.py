"""Pages of the report."""

from distalign.present.pages import card_page, provenance_page
from distalign.store.provenance import collect

CARD = """\
# Face attribute classifier (gender)

`convnet` reads **perceived** attributes.

| a | b |
| --- | --- |
| x | 1 |
"""


def test_card_is_a_page_with_its_tables():
    page = card_page(CARD)
    assert "<title>Face attribute classifier (gender)</title>" in page
    assert "<strong>perceived</strong>" in page
    assert "<td>x</td>" in page
    assert "http" not in page


def test_provenance_gathers_what_files_say_of_themselves():
    one, two = collect("bias", {"read": {}}), collect("tables", {})
    other = {**two, "versions": {**two["versions"], "numpy": "0.1"}, "code": {"commit": "f" * 40, "modified": True}}
    page = provenance_page("Where from", [one, two, other, {}], {"config.yaml": {"runs": {"<ours>": {"rank": 8}}}})
    assert f"{two['versions']['numpy']}, 0.1" in page
    assert f"<td>{two['versions']['pyarrow']}</td>" in page
    assert "ffffffffffff, with changes" in page
    assert "&lt;ours&gt;" in page
    assert "rank: 8" in page
    for stage in ("bias", "tables"):
        assert f"<td>{stage}</td>" in page


def test_provenance_of_nothing():
    assert "Where from" in provenance_page("Where from", [{}], {})
