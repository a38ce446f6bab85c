"""A table as text: csv, Markdown, LaTeX, HTML, and plain for a terminal."""

import csv
import io
from collections.abc import Callable

from distalign.config.metrics import COSTS, INFERENCE_COST, QUALITY, TAKES_TARGET
from distalign.present.cells import Cell, Table
from distalign.present.labels import ARROWS, better, heading, metric_label, number
from distalign.present.pages import render_page

PAPER = "paper"
NOTHING = "–"
TEX_ESCAPES = str.maketrans(
    {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
     "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "×": r"$\times$", "↓": r"$\downarrow$", "↑": r"$\uparrow$"}
)  # fmt: skip


def spread(mean: float | None, std: float | None) -> str:
    """`.23 ± .16`; a dash when nothing was measured."""
    if mean is None:
        return NOTHING
    return number(mean) if std is None else f"{number(mean)} ± {number(std)}"


def shown(cell: Cell) -> str:
    """What stands in a cell: a number with its spread, or yes and no."""
    if cell.metric == TAKES_TARGET:
        return "yes" if cell.value else "no"
    return spread(cell.value, cell.std)


def limits(cell: Cell) -> str:
    """`[.19, .27]`, or nothing."""
    return "" if cell.low is None else f"[{number(cell.low)}, {number(cell.high)}]"


def over_seeds(cell: Cell) -> str:
    """`seeds ± .02 [.21, .25]`, or nothing with one seed."""
    if cell.seed_std is None:
        return ""
    return f"seeds ± {number(cell.seed_std)} [{number(cell.seed_low)}, {number(cell.seed_high)}]"


def notes(table: Table) -> list[str]:
    """What a reader has to know to read the numbers."""
    counts = sorted({cell.prompts for row in table.rows for cell in row.cells if cell.prompts})
    prompts = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}" if counts else "no"
    spread_over = f"Mean ± standard deviation over {prompts} prompts"
    lines = [f"{spread_over} [95% bootstrap interval of the mean, over prompts and images]."]
    lines = [] if set(table.columns) <= {*QUALITY, *COSTS, TAKES_TARGET} else lines
    floors = {metric: f"{metric_label(metric)} {number(value)}" for metric, value in table.floors().items()}
    fair = ", ".join(text for metric, text in floors.items() if metric not in QUALITY)
    if fair:
        lines.append(f"With these numbers of images, a perfectly fair generator would score: {fair}.")
    real = [metric for metric in floors if metric in QUALITY]
    if real:
        names, scores = " and ".join(map(metric_label, real)), ", ".join(floors[metric] for metric in real)
        lines.append(
            f"{names}: all images of a row together against held-out real pictures [95% jackknife interval]. "
            f"Other held-out real pictures would score: {scores}."
        )
    if INFERENCE_COST in table.columns:
        lines.append("Cost per image: evaluations of the U-Net, counted, relative to plain sampling.")
    seeds = sorted({row.seeds for row in table.rows})
    if seeds[-1] > 1:
        counts_of_seeds = " or ".join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))
        lines.append(
            f"Averaged over {counts_of_seeds} seeds; 'seeds ±': standard deviation over them [95% interval of their "
            "mean by Student's t]."
        )
    if any(table.has_paper(metric) for metric in table.columns):
        lines.append("The paper's numbers (Shen et al., ICLR 2024) are for Stable Diffusion 1.5.")
    return lines


def as_csv(table: Table) -> str:
    """One line per row, plain numbers, for spreadsheets."""
    parts = {"value": "", "std": " std", "low": " low", "high": " high", "floor": " floor"}
    parts |= {"seed_std": " seeds std", "seed_low": " seeds low", "seed_high": " seeds high"}
    parts |= {"paper": " paper", "paper_std": " paper std"}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = [metric + suffix for metric in table.columns for suffix in parts.values()]
    writer.writerow(["group", "label", "run", "evaluation", *names])
    for row in table.rows:
        values = [getattr(cell, part) for cell in row.cells for part in parts]
        numbers = ["" if value is None else f"{value:.6g}" for value in values]
        writer.writerow([row.group or "", row.label, row.run, row.evaluation, *numbers])
    return buffer.getvalue()


def as_markdown(table: Table) -> str:
    """A Markdown table with the paper's columns beside ours."""
    head = ["Group", "Method"]
    for metric in table.columns:
        head += [heading(metric), *([PAPER] if table.has_paper(metric) else [])]
    lines, previous = [head], None
    for row in table.rows:
        line = [row.group or "" if row.group != previous else "", row.label]
        for cell in row.cells:
            value = shown(cell)
            value = f"**{value}**" if cell.best else value
            line.append(" ".join(part for part in (value, limits(cell), over_seeds(cell)) if part))
            line += [spread(cell.paper, cell.paper_std)] if table.has_paper(cell.metric) else []
        lines.append([text.replace("|", r"\|") for text in line])
        previous = row.group
    widths = _widths(lines)
    lines.insert(1, ["-" * width for width in widths])
    grid = "\n".join(f"| {' | '.join(_padded(line, widths))} |" for line in lines)
    return f"**{table.title}**\n\n{grid}\n\n" + "  \n".join(notes(table)) + "\n"


def as_text(table: Table) -> str:
    """For a terminal: under each row its intervals, and under these the paper's numbers."""
    lines = [["", *(heading(metric) for metric in table.columns)]]
    for row in table.rows:
        name = f"{row.label} ({row.group})" if row.group else row.label
        lines.append([name, *map(shown, row.cells)])
        lines.append(["  95% interval", *(limits(cell) for cell in row.cells)])
        if any(cell.seed_std is not None for cell in row.cells):
            lines.append(["", *(over_seeds(cell) for cell in row.cells)])
        if any(cell.paper is not None for cell in row.cells):
            lines.append(["  paper", *(spread(cell.paper, cell.paper_std) for cell in row.cells)])
    text = ["  ".join(_padded(line, _widths(lines))).rstrip() for line in lines]
    return "\n".join([table.title, "", *text, "", *notes(table)]) + "\n"


def as_latex(table: Table) -> str:
    """A booktabs table; needs the package booktabs and nothing else."""
    spans = {metric: 2 if table.has_paper(metric) else 1 for metric in table.columns}
    width = 1 + sum(spans.values())
    heads = [rf"\multicolumn{{{span}}}{{c}}{{{_tex(heading(metric))}}}" for metric, span in spans.items()]
    below = ["ours & paper" if span == 2 else "ours" for span in spans.values()]
    body: list[str] = []
    previous: str | None = ""  # no group is called so: the first row always begins one
    for row in table.rows:
        if row.group != previous:
            body.append(r"\midrule")
            body += [rf"\multicolumn{{{width}}}{{l}}{{\emph{{{_tex(row.group)}}}}} \\"] if row.group else []
        previous = row.group
        values, intervals = [_tex(row.label)], [""]
        for cell in row.cells:
            plain = cell.metric == TAKES_TARGET
            values.append(shown(cell) if plain else _tex_value(cell.value, cell.std, cell.best))
            below_it = "; ".join(part for part in (limits(cell), _tex(over_seeds(cell))) if part)
            intervals.append(rf"{{\scriptsize {below_it}}}" if below_it else "")
            if table.has_paper(cell.metric):
                values.append(_tex_value(cell.paper, cell.paper_std))
                intervals.append("")
        body += [" & ".join(values) + r" \\", " & ".join(intervals) + r" \\"]
    lines = [
        r"\begin{table}", r"\centering", rf"\caption{{{_tex(table.title)}. {_tex(' '.join(notes(table)))}}}",
        rf"\label{{tab:{table.name}}}", rf"\begin{{tabular}}{{l{'c' * (width - 1)}}}", r"\toprule",
        " & ".join(["", *heads]) + r" \\", *([" & ".join(["", *below]) + r" \\"] if 2 in spans.values() else []),
        *body, r"\bottomrule", r"\end{tabular}", r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def as_html(table: Table) -> str:
    """One self-contained page: sortable, light and dark, prints."""
    words = {"heading": metric_label, "better": better, "arrows": ARROWS}
    words |= {"shown": shown, "spread": spread, "limits": limits, "over_seeds": over_seeds}
    return render_page("table.html", words, title=table.title, table=table, notes=notes(table))


def _widths(lines: list[list[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def _padded(line: list[str], widths: list[int]) -> list[str]:
    return [text.ljust(width) for text, width in zip(line, widths, strict=True)]


def _tex(text: str) -> str:
    return text.translate(TEX_ESCAPES).replace("±", r"$\pm$")


def _tex_value(mean: float | None, std: float | None, bold: bool = False) -> str:
    if mean is None:
        return "--"
    value = rf"\textbf{{{number(mean)}}}" if bold else number(mean)
    return value if std is None else rf"{value} {{\small $\pm$ {number(std)}}}"


FORMATS: dict[str, Callable[[Table], str]] = {
    ".csv": as_csv,
    ".md": as_markdown,
    ".tex": as_latex,
    ".html": as_html,
    ".txt": as_text,
}
