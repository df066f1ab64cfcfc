"""How well boxes and text of rendered pages agree with two independent witnesses, page by page, worst first.

  python -m benchmarks.render_quality pdf  --input 'pdfs/*.pdf'         [--sheets DIR]
  python -m benchmarks.render_quality html --input 'pages/**/*.html'    [--sheets DIR]

Ink: of all ink in the quads and in a ring a quarter line wide around them, the share inside (`caught`); a table's rules
and underlines lie outside and lower it. Text: the visible lines against poppler's `pdftotext` (installed apart) or the
document's innerText, as character bigrams in common (Dice, after NFKC, without white space), so that the order of lines
does not count, but that within a line does; and `order`, each line beside the one of the witness that is most like it,
as characters in common in the same order. Legible: the page is cut into windows as by the jobs, without their rules;
`unreadable` is the share of lines that have less than 5 pixels for a character (8 for a full-width one) or 8 of ink
after the squash, by the plain measure of `benchmarks.legibility`: what the rules are there to drop. `--sheets` writes
contact sheets with the quads drawn.
"""

import argparse
import collections
import difflib
import glob
import subprocess
import unicodedata
from pathlib import Path

import numpy as np
import pymupdf
from PIL import Image, ImageDraw

from corpus.legibility import Legibility, squashed, widths
from renderers import pdf
from renderers.charset import decode_html
from renderers.html import BrowserLimits, HtmlRenderer, HtmlSettings
from renderers.ink import ink_report, luminance
from renderers.page import BadDocument, Line, Page
from renderers.windows import Budget, Window, cut

COLOURS = ((220, 0, 0), (0, 130, 0), (0, 0, 230))
CELL, COLUMNS, ROWS = 640, 4, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("pdf", "html"))
    parser.add_argument("--input", required=True, metavar="GLOB")
    parser.add_argument("--sheets", type=Path, metavar="DIR")
    parser.add_argument("--worst", type=int, default=25, help="how many pages to list (default: %(default)s)")
    args = parser.parse_args()
    pymupdf.TOOLS.mupdf_display_errors(False)
    sheets = Sheets(args.sheets) if args.sheets else None
    rows = []
    for name, page, witness in (pdf_pages if args.kind == "pdf" else html_pages)(args.input):
        rows.append(compare(name, page, witness))
        if sheets and page.lines:
            sheets.add(name, page)
    if sheets:
        sheets.flush()
    report(rows, args.worst)


def pdf_pages(pattern: str):
    """Yield (name, page, pdftotext's text) of every page that renders."""
    for path in sorted(glob.glob(pattern, recursive=True)):
        try:
            document = pdf.open_pdf(Path(path).read_bytes())
        except BadDocument as error:
            print(f"{Path(path).name}: {error.kind}: {error}")
            continue
        for number in range(document.page_count):
            try:
                page = pdf.render_page(document, number, pdf.PdfSettings())
            except BadDocument as error:
                print(f"{Path(path).name} page {number}: {error.kind}: {error}")
                continue
            yield f"{Path(path).stem}:{number}", page, pdftotext(path, number)


def pdftotext(path: str, number: int) -> str:
    """Return poppler's text of one page, cut at the crop box as the picture is."""
    page = str(number + 1)
    command = ["pdftotext", "-q", "-enc", "UTF-8", "-cropbox", "-f", page, "-l", page, path, "-"]
    return subprocess.run(command, capture_output=True, timeout=60).stdout.decode("utf-8", "replace")


def html_pages(pattern: str):
    """Yield (name, page, innerText) of every page, tall ones to their full height."""
    settings, limits = HtmlSettings(width=1024, max_height=30_000, plain=1.0), BrowserLimits(page_seconds=120)
    with HtmlRenderer(settings, limits) as renderer:
        for path in sorted(glob.glob(pattern, recursive=True)):
            try:
                page, _, text = renderer.render_with_inner_text(decode_html(Path(path).read_bytes())[0])
            except BadDocument as error:
                print(f"{Path(path).name}: {error.kind}: {error}")
                continue
            yield Path(path).stem, page, text


def compare(name: str, page: Page, witness: str) -> dict:
    """Measure one page against its witness."""
    ink = ink_report(luminance(page.pixels), [line.quad for line in page.lines])
    ours, theirs = letters(" ".join(line.text for line in page.lines)), letters(witness)
    a, b = bigrams(ours), bigrams(theirs)
    common = sum((a & b).values())
    windows = cut(page.lines, page.width, page.height, Budget(), page.faint)
    unreadable = [is_unreadable(line, window) for window in windows for line in window.lines]
    return {
        "unreadable": float(np.mean(unreadable)) if unreadable else 0.0, "order": in_order(page, witness),
        "name": name, "lines": len(page.lines), "hidden": page.hidden, **ink,
        "agreement": 2 * common / max(sum(a.values()) + sum(b.values()), 1) if a or b else 1.0,
        "ours": len(ours), "theirs": len(theirs), "common": common, "more": some(a - b), "less": some(b - a),
    }  # fmt: skip


def is_unreadable(line: Line, window: Window, size: int = Legibility.train_size) -> bool:
    """Whether a line is too narrow or too low once its window has been squashed to `size` pixels."""
    x0, y0, x1, y1 = window.box
    along, across = squashed(line.text, line.quad, size / (x1 - x0), size / (y1 - y0))
    narrow, wide = widths(line.text)
    return along < 5 * narrow + 8 * wide or across < 8


def in_order(page: Page, witness: str) -> float:
    """Return the share of our characters that the most similar line of the witness has in the same order."""
    theirs = [found for found in map(letters, witness.splitlines()) if found]
    bags = [collections.Counter(found) for found in theirs]
    common = total = 0
    for ours in filter(None, (letters(line.text) for line in page.lines)):
        bag = collections.Counter(ours)
        likely = sorted(range(len(theirs)), key=lambda i: -(bag & bags[i]).total() / max(len(theirs[i]), len(ours)))[:3]
        found = [difflib.SequenceMatcher(None, ours, theirs[i], autojunk=False).ratio() for i in likely]
        common, total = common + len(ours) * max(found, default=0.0), total + len(ours)
    return common / max(total, 1)


def letters(text: str) -> str:
    """Leave what both witnesses must agree on: no white space, no control characters, compatibility forms resolved."""
    normal = unicodedata.normalize("NFKC", text)
    return "".join(char for char in normal if not char.isspace() and unicodedata.category(char) not in ("Cc", "Cf"))


def bigrams(text: str) -> collections.Counter:
    return collections.Counter(text[i : i + 2] for i in range(max(len(text) - 1, min(len(text), 1))))


def some(counted: collections.Counter) -> str:
    return " ".join(f"{pair}{number}" for pair, number in counted.most_common(6))


def report(rows: list[dict], worst: int) -> None:
    """Print the means over the set and the worst pages by ink and by text."""
    with_lines = [row for row in rows if row["lines"]]
    characters = sum(row["ours"] + row["theirs"] for row in rows)
    overall = sum(row["agreement"] * (row["ours"] + row["theirs"]) for row in rows) / max(characters, 1)
    print(f"{len(rows)} pages, {len(with_lines)} with lines, {sum(row['lines'] for row in rows)} lines")
    for measure in ("caught", "inside", "outside", "agreement", "order", "unreadable"):
        values = [row[measure] for row in with_lines]
        quantiles = np.quantile(values, (0.05, 0.25, 0.5))
        print(f"  {measure:10s} mean {np.mean(values):.4f}   5 % {quantiles[0]:.3f}   25 % {quantiles[1]:.3f}"
              f"   median {quantiles[2]:.3f}")  # fmt: skip
    print(f"  agreement weighted by characters {overall:.4f}")
    lines = max(sum(row["lines"] for row in rows), 1)
    print(f"  unreadable lines {sum(row['unreadable'] * row['lines'] for row in rows) / lines:.4f} at 448 pixels")
    print("\nworst by ink")
    for row in sorted(with_lines, key=lambda row: row["caught"])[:worst]:
        print(f"  {row['caught']:.3f}  inside {row['inside']:.3f}  outside {row['outside']:.3f}  {row['name']}")
    print("\nworst by text: agreement, characters here and there, hidden lines, bigrams only here, only there")
    for row in sorted(rows, key=lambda row: row["agreement"])[:worst]:
        print(f"  {row['agreement']:.3f}  {row['ours']:6d} {row['theirs']:6d}  {row['hidden']:4d}  {row['name'][:48]}"
              f"  + {row['more']}  - {row['less']}")  # fmt: skip


class Sheets:
    """Contact sheets: COLUMNS x ROWS pages each, quads drawn, a dot at each quad's first corner."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._cells, self._number = folder, [], 0

    def add(self, name: str, page: Page) -> None:
        """Add a page; a full sheet is written."""
        self._cells.append((name, drawn(page)))
        if len(self._cells) == COLUMNS * ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what there is."""
        if not self._cells:
            return
        sheet = Image.new("RGB", (COLUMNS * CELL, ROWS * CELL), (90, 90, 90))
        for index, (name, image) in enumerate(self._cells):
            x, y = index % COLUMNS * CELL, index // COLUMNS * CELL
            image.thumbnail((CELL - 6, CELL - 18))
            sheet.paste(image, (x + 3, y + 15))
            ImageDraw.Draw(sheet).text((x + 3, y + 2), name[-90:], fill=(255, 255, 0))
        sheet.save(self._folder / f"sheet-{self._number:03d}.png")
        self._cells, self._number = [], self._number + 1


def drawn(page: Page) -> Image.Image:
    """Return the page's picture, at most 1.5 times as tall as wide, with the quads drawn."""
    image = Image.fromarray(page.pixels[..., ::-1])
    pen = ImageDraw.Draw(image)
    for number, line in enumerate(page.lines):
        pen.polygon(line.quad, outline=COLOURS[number % 3])
        x, y = line.quad[0]
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(255, 0, 255))
    return image.crop((0, 0, page.width, min(page.height, page.width * 3 // 2)))


if __name__ == "__main__":
    main()
