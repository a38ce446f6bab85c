"""The claims of the paper with what became of them: as Parquet, as a page to read, and as a page of the report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment, FileSystemLoader

from distalign.measure.claims import Decision, Outcome
from distalign.measure.paired import FAILS, HOLDS, UNDECIDED
from distalign.present.labels import metric_label, number
from distalign.store.files import atomic_write_text
from distalign.store.parquet import write_table

MARKS = {HOLDS: "✓", FAILS: "✗", UNDECIDED: "?"}
NOTHING = "–"
NARROW = 0.05

# One row per check. `verdict` is the claim's, `check_verdict` the check's own; `unit` says what n counts.
CLAIMS = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("preset", "claim", "sentence", "place", "verdict")),
        pa.field("check", pa.int32(), nullable=False),
        *(pa.field(name, pa.string(), nullable=False) for name in ("says", "quantity", "asked", "check_verdict")),
        *(pa.field(name, pa.float64()) for name in ("effect", "low", "high")),
        pa.field("n", pa.int32()),
        pa.field("unit", pa.string()),
        pa.field("reason", pa.string()),
    ]
)


def write_claims_files(
    decisions: Sequence[Decision], preset: str, paths: Iterable[Path], provenance: Mapping[str, Any]
) -> None:
    """Write the claims to every path, in the format its suffix names: parquet, md or html."""
    for path in map(Path, paths):
        if path.suffix == ".parquet":
            write_table(path, claims_table(decisions, preset), CLAIMS, provenance)
        else:
            atomic_write_text(path, FORMATS[path.suffix](decisions, preset))


def claims_table(decisions: Sequence[Decision], preset: str) -> dict[str, list[Any]]:
    """Columns of schema CLAIMS."""
    measured = ("effect", "low", "high", "n", "unit", "reason")
    rows = [
        {
            "preset": preset,
            "claim": it.name,
            "sentence": it.claim,
            "place": it.place,
            "verdict": it.verdict,
            "check": index,
            "says": says(outcome),
            "quantity": quantity(outcome.check),
            "asked": asked(outcome.check),
            "check_verdict": outcome.verdict,
            **{name: getattr(outcome, name) for name in measured},
        }
        for it in decisions
        for index, outcome in enumerate(it.outcomes)
    ]
    return {name: [row[name] for row in rows] for name in CLAIMS.names}


def summary(decisions: Sequence[Decision], preset: str) -> str:
    """How many claims hold, in a sentence."""
    counts = {verdict: sum(it.verdict == verdict for it in decisions) for verdict in (HOLDS, FAILS, UNDECIDED)}
    hold = "holds" if counts[HOLDS] == 1 else "hold"
    fail = "does not hold" if counts[FAILS] == 1 else "do not hold"
    are = "is" if counts[UNDECIDED] == 1 else "are"
    return (
        f"Of {len(decisions)} claims of the paper, with the preset {preset}: {counts[HOLDS]} {hold}, "
        f"{counts[FAILS]} {fail}, {counts[UNDECIDED]} {are} undecided."
    )


EXPLANATION = (
    "A check holds if the whole 95% interval of its effect lies where the claim puts it, does not hold if the whole "
    "interval lies elsewhere, and is undecided if the interval reaches over the bound or something was not measured. "
    "A claim holds if all of its checks do, and does not if any of them does not. Effects on the same prompts are "
    "paired, prompt by prompt. Intervals are over prompts: how another training of the same run would differ they "
    "do not say."
)


def says(outcome: Outcome) -> str:
    """The check in words."""
    return str(outcome.check.get("says") or quantity(outcome.check))


def asked(check: Mapping[str, Any]) -> str:
    """Where the effect should be."""
    if "between" in check:
        return "between {} and {}".format(*map(_bound, check["between"]))
    word = "below" if "below" in check else "above"
    return f"{word} {_bound(check[word])}"


def quantity(check: Mapping[str, Any]) -> str:
    """What is compared with what, in names of the configuration."""
    sides = {side: check[side] for side in ("value", "minus", "over") if side in check}
    if check["kind"] == "training":
        sign = "/" if check["by"] == "ratio" else "-"
        return f"{metric_label(check['metric'])} of {check['training']}: end {sign} start of training"
    if check["kind"] == "study":
        return f"Gradient study {check['study']}: {_joined({side: _selected(it) for side, it in sides.items()})}"
    abouts = {side: _about(it) for side, it in sides.items()}
    if len(set(abouts.values())) == 1:
        return f"{abouts['value']}: {_joined({side: _term(it) for side, it in sides.items()})}"
    return _joined({side: f"{_term(it)} [{abouts[side]}]" for side, it in sides.items()})


def effect(outcome: Outcome) -> str:
    """`-.27 [-.35, -.19]`; with a third digit where the interval is narrow."""
    if outcome.effect is None:
        return NOTHING
    if outcome.low is None or outcome.high is None:
        return number(outcome.effect)
    digits = None if outcome.high - outcome.low >= NARROW else 3
    low, high = number(outcome.low, digits), number(outcome.high, digits)
    return f"{number(outcome.effect, digits)} [{low}, {high}]"


def as_markdown(decisions: Sequence[Decision], preset: str) -> str:
    """A page: the verdicts in one table, then each claim with its checks."""
    lines = ["# Claims", "", summary(decisions, preset), "", EXPLANATION, ""]
    lines += ["| | Claim | Place | Verdict |", "|---|---|---|---|"]
    for index, it in enumerate(decisions, 1):
        lines.append(f"| {index} | {_cell(it.claim)} | {_cell(it.place)} | {MARKS[it.verdict]} {it.verdict} |")
    for index, it in enumerate(decisions, 1):
        lines += ["", f"## {index}. {it.claim}", "", f"{it.place}. **{it.verdict.capitalize()}.**", ""]
        lines += [it.note, ""] if it.note else []
        lines += ["| Check | Effect [95% interval] | Asked | n | Verdict |", "|---|---|---|---|---|"]
        for outcome in it.outcomes:
            words = _cell(says(outcome))
            words += f"<br>`{_cell(quantity(outcome.check))}`" if outcome.check.get("says") else ""
            reason = f": {outcome.reason}" if outcome.reason else ""
            cells = [words, effect(outcome), asked(outcome.check), _count(outcome)]
            lines.append(f"| {' | '.join(cells)} | {MARKS[outcome.verdict]} {outcome.verdict}{_cell(reason)} |")
    return "\n".join(lines) + "\n"


def as_html(decisions: Sequence[Decision], preset: str) -> str:
    """One self-contained page, light and dark."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    words: dict[str, Any] = {"says": says, "quantity": quantity, "asked": asked, "effect": effect, "count": _count}
    words |= {"marks": MARKS, "summary": summary(decisions, preset), "explanation": EXPLANATION}
    return environment.get_template("claims.html").render(decisions=decisions, preset=preset, **words) + "\n"


FORMATS: dict[str, Callable[[Sequence[Decision], str], str]] = {".md": as_markdown, ".html": as_html}


def _joined(parts: Mapping[str, str]) -> str:
    signs = {"value": "", "minus": " - ", "over": " / "}
    return "".join(signs[side] + text for side, text in parts.items())


def _about(it: Mapping[str, Any]) -> str:
    reader = f" (read by {it['classifier']})" if it.get("classifier") else ""
    return f"{metric_label(it['metric'])} on {it['evaluation']}{reader}"


def _selected(where: Mapping[str, Any]) -> str:
    return f"[{', '.join(value if isinstance(value, str) else _bound(value) for value in where.values())}]"


def _term(it: Mapping[str, Any]) -> str:
    text = f"({it['run']} - {it['minus']})" if it.get("minus") else str(it["run"])
    text = text if it["factor"] == 1 else f"{_bound(it['factor'])} {text}"
    return text if it["offset"] == 0 else f"({text} {'+' if it['offset'] > 0 else '-'} {_bound(abs(it['offset']))})"


def _bound(value: float) -> str:
    text = f"{value:g}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _count(outcome: Outcome) -> str:
    return NOTHING if outcome.n is None else f"{outcome.n} {outcome.unit}"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
