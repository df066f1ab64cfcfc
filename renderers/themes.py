"""How a web page looks: its viewport, and a style under its own where its style sheets are missing.

Pages without their style sheets all look like 1995: Times, blue links, white. A theme is drawn for each page from a
seed. It comes before all styles of the page, with no weight of its own, so that whatever the page says wins.
"""

import subprocess
from dataclasses import dataclass
from functools import cache

import numpy as np

# Families that Debian has packages for, in the roles that pages give them.
SANS = ("Liberation Sans", "DejaVu Sans", "Open Sans", "Lato", "Roboto", "Carlito", "Noto Sans", "Linux Biolinum O")
SERIF = ("Liberation Serif", "DejaVu Serif", "EB Garamond", "Caladea", "Linux Libertine O", "Noto Serif")
CJK = (
    "Noto Sans CJK SC", "Noto Serif CJK SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "AR PL UMing CN",
    "AR PL UKai CN",
)  # fmt: skip
_PAPERS = ("#ffffff", "#ffffff", "#fbfbf8", "#f6f1e5", "#eef3f7", "#f2f2f2")
_INKS = ("#000000", "#1a1a1a", "#222222", "#333333", "#2b2a33", "#14213d")
_DARK = (("#15171a", "#e8e8e8"), ("#1e2430", "#dfe6ee"), ("#000000", "#f2f2f2"), ("#2b2b2b", "#f5f0e6"))
_ACCENTS = ("#0645ad", "#b3261e", "#00695c", "#6a1b9a", "#8a4b00", "#1b5e20")
_LIGHT_ACCENTS = ("#8ab4f8", "#f2b8b5", "#80cbc4", "#ce93d8", "#ffcc80", "#a5d6a7")
_SCALES = (1.0, 1.25, 1.5)


@dataclass(frozen=True)
class Look:
    """A theme's style sheet and name."""

    css: str
    name: str


@cache
def installed_families() -> tuple[str, ...]:
    """Return the known families that are installed here, in a fixed order; without fontconfig: none."""
    try:
        listed = subprocess.run(["fc-list", ":", "family"], capture_output=True, text=True, timeout=60).stdout
    except OSError:
        return ()
    names = {name.strip() for line in listed.splitlines() for name in line.split(",")}
    return tuple(family for family in (*SANS, *SERIF, *CJK) if family in names)


def draw_view(seed: list[int]) -> tuple[float, float]:
    """Draw the picture's scale, and where between its narrowest and its widest the column of text lies."""
    rng = np.random.default_rng([*seed, 1])
    return float(_pick(rng, _SCALES)), float(rng.uniform(0, 1))


def draw_look(seed: list[int], *, coloured: bool, plain: float) -> Look:
    """Draw a look; a page that is `coloured` itself gets no dark theme, a share `plain` of pages no theme at all."""
    rng = np.random.default_rng(seed)
    if rng.random() < plain:
        return Look("", "plain")
    dark = rng.random() < 0.2 and not coloured
    paper, ink = _DARK[rng.integers(len(_DARK))] if dark else (_pick(rng, _PAPERS), _pick(rng, _INKS))
    accent = _pick(rng, _LIGHT_ACCENTS if dark else _ACCENTS)
    kind = "serif" if rng.random() < 0.35 else "sans-serif"
    text, cjk = _family(rng, SERIF if kind == "serif" else SANS), _family(rng, CJK)
    heading = text if rng.random() < 0.6 else _family(rng, SANS + SERIF)
    size, leading = int(rng.integers(14, 23)), rng.uniform(1.15, 1.75)
    panel = f"color-mix(in srgb, {ink} {int(rng.integers(3, 9))}%, {paper})"
    align, bullet = _pick(rng, ("start", "start", "justify")), _pick(rng, ("none", "disc", "square"))
    css = f"""
      :where(html) {{ background: {paper}; color: {ink}; font: {size}px/{leading:.2f} {text}{cjk}{kind}; }}
      :where(body) {{ margin: {int(rng.integers(0, 28))}px; }}
      :where(h1, h2, h3, h4) {{ font-family: {heading}{cjk}{kind}; line-height: {rng.uniform(1.1, 1.35):.2f};
        color: {accent if rng.random() < 0.3 else ink}; font-weight: {_pick(rng, ("normal", "bold"))}; }}
      :where(h1) {{ font-size: {rng.uniform(1.4, 2.2):.2f}em; }}
      :where(h2) {{ font-size: {rng.uniform(1.2, 1.6):.2f}em; }}
      :where(a) {{ color: {accent}; text-decoration: {_pick(rng, ("none", "underline"))}; }}
      :where(p, li, dd) {{ margin-block: {rng.uniform(0.3, 1.1):.2f}em; text-align: {align}; }}
      :where(ul, ol) {{ padding-inline-start: {rng.uniform(1.2, 2.4):.2f}em; list-style: {bullet}; }}
      :where(nav, aside, header, footer, blockquote, pre) {{ background: {panel};
        padding: {rng.uniform(0, 0.8):.2f}em; }}
      :where(table) {{ border-collapse: collapse; font-size: inherit; color: inherit; }}
      :where(td, th) {{ padding: {rng.uniform(0.1, 0.5):.2f}em; border: {int(rng.integers(0, 2))}px solid {panel}; }}
      :where(hr) {{ border: 0; border-top: 1px solid {accent}; }}"""
    return Look(css, f"{'dark' if dark else 'light'} {size}px {text.strip(', ') or kind}")


def _pick(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]


def _family(rng: np.random.Generator, families: tuple[str, ...]) -> str:
    here = [family for family in families if family in installed_families()]
    return f'"{_pick(rng, here)}", ' if here else ""
