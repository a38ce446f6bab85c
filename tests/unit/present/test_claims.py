from html.parser import HTMLParser

from distalign.measure.claims import Decision, Outcome
from distalign.present.claims import CLAIMS, asked, effect, quantity, summary, write_claims_files
from distalign.store.parquet import read_provenance, read_table

TERM = {"factor": 1.0, "offset": 0.0, "metric": "bias/gender", "evaluation": "occupations", "classifier": "evaluation"}
CHECK = {"kind": "results", "value": {"run": "ours", **TERM}, "over": {"run": "original", **TERM}, "below": 0.67}
DECISIONS = [
    Decision(
        "lower",
        "Bias is lower.",
        "Abstract",
        None,
        "holds",
        (Outcome({**CHECK, "says": "Less <than> | before"}, "holds", 0.483, 0.33, 0.65, 24, "prompts"),),
    ),
    Decision(
        "better",
        "It is better.",
        "Table 1",
        "Read with care.",
        "does not hold",
        (
            Outcome(CHECK, "does not hold", 0.9, 0.8, 0.95, 24, "prompts"),
            Outcome(CHECK, "undecided", reason="run uce is not in config.yaml"),
        ),
    ),
]


class Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.data = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.data.append(data.strip())


def test_every_format(tmp_path):
    paths = [tmp_path / f"claims.{suffix}" for suffix in ("parquet", "md", "html")]
    write_claims_files(DECISIONS, "mini", paths, {"fingerprint": "f"})
    rows = read_table(paths[0], CLAIMS).to_pylist()
    assert [(row["claim"], row["check"], row["check_verdict"]) for row in rows] == [
        ("lower", 0, "holds"),
        ("better", 0, "does not hold"),
        ("better", 1, "undecided"),
    ]
    assert (rows[0]["effect"], rows[0]["low"], rows[0]["n"], rows[0]["unit"]) == (0.483, 0.33, 24, "prompts")
    assert rows[2]["effect"] is None
    assert rows[2]["reason"] == "run uce is not in config.yaml"
    assert read_provenance(paths[0])["fingerprint"] == "f"
    markdown = paths[1].read_text()
    assert "| 2 | It is better. | Table 1 | ✗ does not hold |" in markdown
    assert r"Less <than> \| before" in markdown
    assert "| .48 [.33, .65] | below .67 | 24 prompts | ✓ holds |" in markdown
    assert "| – | below .67 | – | ? undecided: run uce is not in config.yaml |" in markdown
    page = Text()
    page.feed(paths[2].read_text())
    assert page.open == []
    assert "Less <than> | before" in page.data
    assert {"✓ holds", "✗ does not hold", "? undecided", "Read with care."} <= set(page.data)


def test_every_line_of_a_markdown_table_has_its_cells(tmp_path):
    write_claims_files(DECISIONS, "mini", [tmp_path / "claims.md"], {})
    blocks = [block for block in (tmp_path / "claims.md").read_text().split("\n\n") if block.startswith("|")]
    assert len(blocks) == 3
    for block in blocks:
        assert len({line.replace(r"\|", "").count("|") for line in block.splitlines()}) == 1


def test_summary_counts():
    assert summary(DECISIONS, "mini") == (
        "Of 2 claims of the paper, with the preset mini: 1 holds, 1 does not hold, 0 are undecided."
    )


def test_narrow_intervals_show_a_third_digit():
    assert effect(Outcome(CHECK, "holds", -0.014, -0.021, -0.0004, 24, "prompts")) == "-.014 [-.021, .000]"
    assert effect(Outcome(CHECK, "holds", -0.27, -0.354, -0.19, 24, "prompts")) == "-.27 [-.35, -.19]"
    assert effect(Outcome(CHECK, "undecided", 0.5, n=1, unit="prompts")) == ".50"


def test_what_is_compared_in_words():
    assert quantity(CHECK) == "Gender bias on occupations (read by evaluation): ours / original"
    parts = {"value": {**CHECK["value"], "minus": "x", "factor": 0.5}, "minus": {**CHECK["over"], "offset": -0.1}}
    text = quantity({"kind": "results", **parts})
    assert text == "Gender bias on occupations (read by evaluation): .5 (ours - x) - (original - .1)"
    plain = {**TERM, "metric": "dino", "classifier": None}
    other = {**CHECK, "over": {"run": "original", **plain, "evaluation": "sports"}}
    assert quantity(other) == "ours [Gender bias on occupations (read by evaluation)] / original [DINO on sports]"
    training = {"kind": "training", "training": "ours", "metric": "loss/align", "by": "ratio", "above": 0.9}
    assert quantity(training) == "Alignment loss of ours: end / start of training"
    study = {
        "kind": "study",
        "study": "one",
        "value": {"estimator": "exact", "steps": 20.0},
        "minus": {"estimator": "x"},
    }
    assert quantity(study) == "Gradient study one: [exact, 20] - [x]"
    assert (asked(CHECK), asked(training), asked({"between": [-0.1, 1.0]})) == (
        "below .67",
        "above .9",
        "between -.1 and 1",
    )
