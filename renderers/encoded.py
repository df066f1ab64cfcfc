"""A rendered page made ready to leave its process: measured, judged, cut into windows, encoded as JPEG."""

import hashlib
import io
from dataclasses import dataclass, field

import cv2
import numpy as np
from PIL import Image

from corpus.verdicts import Verdict
from renderers import rules, windows
from renderers.boilerplate import boilerplate_share
from renderers.characters import guess_language
from renderers.crops import window_pixels
from renderers.page import Page, Quad

THUMBNAIL = 160  # pixels, longest side


@dataclass(frozen=True)
class OutputSettings:
    """JPEG quality (1 to 95), the budget of a window, and the thresholds of the rules (None: off).

    `per_page`: a wrong character drops its page, as in the paper, instead of its window.
    """

    quality: int = 90
    budget: windows.Budget = windows.Budget()
    rules: dict[str, float | None] = field(default_factory=lambda: dict(rules.PDF_RULES))
    per_page: bool = False


def encode_page(page: Page, settings: OutputSettings) -> tuple[dict, list[bytes]]:
    """Return a JSON description of the page and one JPEG per window, or one thumbnail where a rule drops the page.

    The description holds `size`, `values` (rule -> measured value), `verdict` ([rule, value, threshold] or null),
    `language`, `digest` (of the text and its places, for duplicates), `hidden`, and per window `box`, `tokens`,
    `values`, `verdict` and `lines` ([text, 8 coordinates in pixels of the window]). The image of a window that a rule
    drops is a thumbnail.
    """
    text = " ".join(line.text for line in page.lines)
    values = rules.measure_page(page, text.replace(" ", "")) | rules.measure_glyphs(page.lines)
    values |= rules.measure_text(text)
    if "boilerplate" in settings.rules:
        values["boilerplate"] = boilerplate_share(text)
    verdict = rules.judge(values, rules.of_pages(settings.rules, settings.per_page))
    described = {
        "size": [page.width, page.height],
        "values": values,
        "verdict": _listed(verdict),
        "language": guess_language(text),
        "digest": _digest(page),
        "hidden": page.hidden,
        "windows": [],
    }
    if verdict:
        return described, [thumbnail(page.pixels)]
    on_windows = rules.of_windows(settings.rules, settings.per_page)
    images = []
    for cut in windows.cut(page.lines, page.width, page.height, settings.budget, page.faint):
        window, image = _encode_window(page, cut, settings, on_windows)
        described["windows"].append(window)
        images.append(image)
    return described, images


def _encode_window(page: Page, cut: windows.Window, settings: OutputSettings, thresholds: dict) -> tuple[dict, bytes]:
    pixels, uncovered = window_pixels(page.pixels, cut)
    height, width = pixels.shape[:2]
    values = rules.measure_window(cut.lines, width, height, uncovered, settings.budget.legibility)
    values["window_too_long"] = round(cut.tokens)
    verdict = rules.judge(values, thresholds | {"window_too_long": settings.budget.tokens})
    described = {
        "box": cut.box, "tokens": round(cut.tokens), "covered": len(cut.others), "values": values,
        "verdict": _listed(verdict), "lines": [[line.text, _flat(line.quad)] for line in cut.lines],
    }  # fmt: skip
    return described, thumbnail(pixels) if verdict else jpeg(pixels, settings.quality)


def _listed(verdict: Verdict | None) -> list | None:
    return verdict and [verdict.rule, verdict.value, verdict.threshold]


def jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """Encode uint8 [height, width, 3] BGR."""
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


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
