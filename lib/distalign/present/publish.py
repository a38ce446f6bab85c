"""Put tables, claims, costs and figures of a run into the documentation.

`python -m distalign.present.publish PRESET PAGE...` fills the marked places of pages in Markdown from
`results/PRESET`, and copies the figures the pages show. A place is

    <!-- shown: tables/comparison.md -->
    <!-- /shown -->

with a Markdown file of the results, or `costs`; what stands between the marks is replaced. A figure is a picture in a
folder `pictures/` that is called as the figure.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from distalign.config.files import read_yaml
from distalign.config.study import CONFIG_FILE, load_study
from distalign.errors import UserError
from distalign.present.costs import as_markdown, table_costs
from distalign.store.files import atomic_write_text

COSTS = "costs"
PLACE = re.compile(r"(<!-- shown: (?P<what>\S+) -->\n).*?(<!-- /shown -->)", re.DOTALL)
PICTURE = re.compile(r"\]\((?P<file>[^)\s]*pictures/(?P<figure>[\w.-]+)\.png)\)")
HEADING = re.compile(r"^(#+ )", re.MULTILINE)


def publish(page: Path, results: Path, costs: str) -> tuple[list[str], list[str]]:
    """Fill a page's places and copy its figures.

    Args:
        page: in Markdown.
        results: `results/{preset}`.
        costs: what stands at the place called `costs`.

    Returns:
        what was put there, in the page's order, and the places that stay as they are, as what they show was not made:
        ablations, say. Pictures that are no figure of the results stay, too.
    """
    text, shown, left = page.read_text(), [], []

    def filled(place: re.Match[str]) -> str:
        what = place["what"]
        if what != COSTS and not (results / what).is_file():
            left.append(what)
            return place[0]
        shown.append(what)
        content = costs if what == COSTS else HEADING.sub(r"#\1", (results / what).read_text())
        return f"{place[1]}\n{content.strip()}\n\n{place[3]}"

    new = PLACE.sub(filled, text)
    for picture in PICTURE.finditer(text):
        figure = results / "figures" / f"{picture['figure']}.png"
        if figure.is_file():
            copy = page.parent / picture["file"]
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(figure, copy)
            shown.append(picture["file"])
    if new != text:
        atomic_write_text(page, new)
    return shown, left


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the pages; 0 unless one cannot be read or written."""
    parser = argparse.ArgumentParser(prog="python -m distalign.present.publish", description=__doc__)
    parser.add_argument("preset")
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE")
    options = parser.parse_args(arguments)
    root = Path.cwd()
    try:
        study = load_study({**read_yaml(root / CONFIG_FILE), "preset": options.preset}, root)
        results = Path("results") / options.preset
        costs = as_markdown(table_costs(study, results / "benchmarks"))
        for page in options.pages:
            _say(page, *publish(page, results, costs))
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _say(page: Path, shown: Sequence[str], left: Sequence[str]) -> None:
    print(f"{page}: {', '.join(shown) or 'nothing to show'}")
    if left:
        print(f"{page}: stays as it was, not made here: {', '.join(left)}")


if __name__ == "__main__":
    sys.exit(main())
