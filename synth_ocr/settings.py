"""Everything that shapes an image, as data. The defaults are SynthDoG's published ones (donut, `config_en.yaml`).

A pair is the range a value is drawn from, uniformly; both ends are possible where the values are whole numbers.
Lengths are pixels unless said otherwise.
"""

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace

from corpus.legibility import Legibility

_FREE, _WHOLE = (0.75, 1.0), (1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """The photo behind the page, and the final picture's size."""

    landscape: float = 0.5  # probability
    short_side: tuple[int, int] = (720, 1024)
    aspect_ratio: tuple[float, float] = (1.0, 2.0)  # long side / short side
    background_blur: tuple[int, int] = (0, 10)  # Gaussian sigma, whole numbers
    jpeg_quality: tuple[int, int] = (50, 95)


@dataclass(frozen=True, kw_only=True)
class Page:
    """The sheet of paper: its size, its texture, how it is bent and tilted."""

    fullscreen: float = 0.5  # probability that the sheet has the canvas' size
    landscape: float = 0.5
    short_side: tuple[int, int] = (480, 1024)
    aspect_ratio: tuple[float, float] = (1.0, 2.0)
    margin: tuple[float, float] = (0.0, 0.1)  # share of the sheet's width and height, on each side
    texture_alpha: tuple[float, float] = (0.0, 0.2)  # of the grey texture over white
    elastic_alpha: tuple[float, float] = (0.0, 1.0)  # largest displacement of a pixel
    elastic_sigma: tuple[float, float] = (0.0, 0.5)
    noise: tuple[float, float] = (0.0, 8.0)  # standard deviation in grey levels, the same in all channels
    tilt_weights: tuple[float, ...] = (750, 50, 50, 25, 25, 25, 25, 50)
    # Per kind of tilt, the range of what is left of the sheet's top, right, bottom and left edge.
    tilts: tuple[tuple[tuple[float, float], ...], ...] = (
        (_FREE, _FREE, _FREE, _FREE),
        (_FREE, _WHOLE, _FREE, _WHOLE),
        (_WHOLE, _FREE, _WHOLE, _FREE),
        (_FREE, _WHOLE, _WHOLE, _WHOLE),
        (_WHOLE, _FREE, _WHOLE, _WHOLE),
        (_WHOLE, _WHOLE, _FREE, _WHOLE),
        (_WHOLE, _WHOLE, _WHOLE, _FREE),
        (_WHOLE, _WHOLE, _WHOLE, _WHOLE),
    )


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A stack of grids; each grid has one text size and one face, each of its columns one alignment."""

    text_scale: tuple[float, float] = (0.0334, 0.1)  # row height / shorter side of the text area
    max_rows: int = 10
    max_columns: int = 3
    fill: tuple[float, float] = (0.5, 1.0)  # share of the width that columns take, gaps between them aside
    full: float = 0.1  # probability of a share of 1
    alignments: tuple[str, ...] = ("left", "right", "center")
    stack_spacing: tuple[float, float] = (0.0334, 0.0334)  # between grids, like text_scale
    stack_fill: tuple[float, float] = (0.5, 1.0)  # share of the height that grids take
    stack_full: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Text:
    """Lines of text: how far they fill their cell, their colour, what faces must cover."""

    fill: tuple[float, float] = (0.5, 1.0)  # share of the cell's width
    line_colour: float = 0.2  # probability that a line has a dark colour of its own instead of black
    page_colour: float = 0.2  # probability that one dark colour replaces all of them
    darkness: tuple[int, int] = (0, 64)  # luminance of those colours
    least_coverage: float = 0.95  # share of the coming text that a face must have glyphs for


@dataclass(frozen=True, kw_only=True)
class Finish:
    """What happens to the whole picture at the end."""

    tint: float = 0.2  # probability
    tint_alpha: tuple[float, float] = (0.0, 0.2)
    shadow_intensity: tuple[int, int] = (0, 160)
    shadow_amount: tuple[float, float] = (0.0, 1.0)
    shadow_smoothing: tuple[float, float] = (0.5, 1.0)
    contrast: tuple[float, float] = (1.0, 1.5)
    brightness: tuple[int, int] = (-48, 0)
    motion_blur: float = 0.5  # probability
    motion_blur_size: tuple[int, int] = (3, 5)
    blur: tuple[int, int] = (0, 1)  # Gaussian sigma; SynthDoG writes [0, 1.5] and draws whole numbers below 2


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One recipe for images. The last four are not SynthDoG's; all but `legibility` are off.

    `legibility`: rows of text are at least so high, and lines below are not printed; advance and ink 0: SynthDoG's own.
    """

    canvas: Canvas = field(default_factory=Canvas)
    page: Page = field(default_factory=Page)
    layout: Layout = field(default_factory=Layout)
    text: Text = field(default_factory=Text)
    finish: Finish = field(default_factory=Finish)
    legibility: Legibility = field(default_factory=Legibility)
    vertical: float = 0.0  # probability that a page is set in vertical columns, from right to left
    words: bool = False  # also label words (Chinese: single characters) inside each line
    straight: bool = False  # no elastic distortion: every line is exactly the projection of a rectangle


def undistorted(settings: Settings) -> Settings:
    """Return the same layouts as black ink on a flat, sharp, white page that fills the canvas: to check labels on."""
    never, one = (0.0, 0.0), (1.0,)
    canvas = replace(settings.canvas, background_blur=(0, 0), jpeg_quality=(95, 95))
    page = replace(
        settings.page, fullscreen=1.0, texture_alpha=never, elastic_alpha=never, noise=never,
        tilt_weights=one, tilts=((_WHOLE,) * 4,),
    )  # fmt: skip
    text = replace(settings.text, line_colour=0.0, page_colour=0.0)
    finish = replace(
        settings.finish, tint=0.0, shadow_intensity=(0, 0), contrast=(1.0, 1.0), brightness=(0, 0),
        motion_blur=0.0, blur=(0, 0),
    )  # fmt: skip
    return replace(settings, canvas=canvas, page=page, text=text, finish=finish, straight=True)


def to_json(settings: Settings) -> dict:
    """Return the settings as JSON values; `from_json` restores them."""
    return _plain(asdict(settings))


def from_json(tree: Mapping) -> Settings:
    """Build settings from JSON values; what is not given keeps its default. ValueError names an unknown setting."""
    return _build(Settings, tree, "")


def _build(kind: type, tree: Mapping, where: str):
    known = {f.name: f for f in fields(kind)}
    for name in tree:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"no setting {where}{name!s}{hint}; settings are {', '.join(known)}")
    default = kind()
    return kind(**{name: _value(getattr(default, name), tree[name], f"{where}{name}") for name in tree})


def _value(default, value, where: str):
    if is_dataclass(default):
        return _build(type(default), value, f"{where}.")
    value = _tuples(value)
    if isinstance(default, tuple) != isinstance(value, tuple):
        raise ValueError(f"setting {where}: {value!r} has not the shape of its default {default!r}")
    return value


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value
