"""A rendered page made ready to leave its process: measured, judged, cut into windows, encoded as JPEG."""

import hashlib
import io
from dataclasses import dataclass, field

import cv2
import numpy as np
from PIL import Image

from renderers import rules, windows
from renderers.characters import guess_language
from renderers.page import Page, Quad

THUMBNAIL = 160  # pixels, longest side


@dataclass(frozen=True)
class OutputSettings:
    """JPEG quality (1 to 95), the budget of a window, and the thresholds of the page rules (None: off)."""

    quality: int = 90
    budget: windows.Budget = windows.Budget()
    rules: dict[str, float | None] = field(default_factory=lambda: dict(rules.PDF_RULES))


def encode_page(page: Page, settings: OutputSettings) -> tuple[dict, list[bytes]]:
    """Return a JSON description of the page and one JPEG per window, or one thumbnail where a rule drops the page.

    The description holds `size`, `values` (rule -> measured value), `verdict` ([rule, value, threshold] or null),
    `language`, `digest` (of the text and its places, for duplicates), `hidden`, and per window `box`, `tokens` and
    `lines` ([text, 8 coordinates in pixels of the window]).
    """
    text = " ".join(line.text for line in page.lines)
    values = rules.measure(page, text.replace(" ", ""))
    verdict = rules.judge(values, settings.rules)
    described = {
        "size": [page.width, page.height],
        "values": values,
        "verdict": verdict and [verdict.rule, verdict.value, verdict.threshold],
        "language": guess_language(text),
        "digest": _digest(page),
        "hidden": page.hidden,
        "windows": [],
    }
    if verdict:
        return described, [thumbnail(page.pixels)]
    cuts = windows.cut(page.lines, page.width, page.height, settings.budget)
    described["windows"] = [
        {"box": cut.box, "tokens": round(cut.tokens), "lines": [[line.text, _flat(line.quad)] for line in cut.lines]}
        for cut in cuts
    ]
    return described, [jpeg(page.pixels, cut.box, settings.quality) for cut in cuts]


def jpeg(pixels: np.ndarray, box: tuple[int, int, int, int], quality: int) -> bytes:
    """Encode a crop of uint8 [height, width, 3] BGR."""
    x0, y0, x1, y1 = box
    return cv2.imencode(".jpg", pixels[y0:y1, x0:x1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def thumbnail(pixels: np.ndarray) -> bytes:
    """Encode a small JPEG of the page for the run's report."""
    image = Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    image.thumbnail((THUMBNAIL, THUMBNAIL), reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


def _flat(quad: Quad) -> list[float]:
    return [round(value, 1) for point in quad for value in point]


def _digest(page: Page) -> str:
    """Two pages are duplicates when their lines are the same and lie, to a few pixels, in the same places."""
    places = [(line.text, round(line.quad[0][0] / 8), round(line.quad[0][1] / 8)) for line in page.lines]
    return hashlib.sha256(repr((page.width, page.height, places)).encode()).hexdigest()[:32]
