"""Where text goes on a page: grids of cells, stacked from top to bottom, as SynthDoG lays them out.

Coordinates are pixels of the flat page, origin top-left. Nothing here overlaps: rows of a grid touch, columns have
gaps, grids have space between them.
"""

from dataclasses import dataclass, replace

import numpy as np

from synth_ocr.settings import Layout


@dataclass(frozen=True)
class Cell:
    """A place for one line of text: its box and the alignment of the text in it."""

    left: float
    top: float
    width: float
    height: float
    alignment: str


Grid = list[Cell]  # column by column, each from top to bottom: the reading order


def stack_grids(
    rng: np.random.Generator, left: float, top: float, width: float, height: float, s: Layout
) -> list[Grid]:
    """Fill a box with grids until the next one does not fit, then spread them over the height."""
    side = min(width, height)
    spacing = side * rng.uniform(*s.stack_spacing)
    usable = height * _share(rng, s.stack_fill, s.stack_full)
    fill = _share(rng, s.fill, s.full)
    grids, bottom = [], 0.0
    while grid := _grid(rng, width, usable - bottom, side * rng.uniform(*s.text_scale), fill, s):
        grids.append([replace(cell, left=left + cell.left, top=top + bottom + cell.top) for cell in grid])
        bottom += grid[-1].top + grid[-1].height + spacing
    shifts = _spread(rng, max(height - max(bottom - spacing, 0), 0), len(grids))
    return [[replace(cell, top=cell.top + shift) for cell in grid] for grid, shift in zip(grids, shifts, strict=True)]


def _share(rng: np.random.Generator, span: tuple[float, float], full: float) -> float:
    is_full, share = rng.random() < full, rng.uniform(*span)
    return 1.0 if is_full else share


def _spread(rng: np.random.Generator, space: float, grids: int) -> np.ndarray:
    """Return how far each grid moves down when `space` is cut at random into the gaps around all grids."""
    gaps = rng.random(grids + 1)
    return np.cumsum(gaps * space / gaps.sum())[:grids]


def _grid(rng: np.random.Generator, width: float, height: float, row: float, fill: float, s: Layout) -> Grid | None:
    """Return a grid of rows `row` high at the origin, of a random shape that fits; None when not even one row does."""
    for choice in rng.permutation(s.max_rows * s.max_columns):
        rows, columns = divmod(int(choice), s.max_columns)
        rows, columns = rows + 1, columns + 1
        if row * (2 * columns - 1) <= width and row * rows <= height:  # a gap is at least as wide as a row is high
            edges = width * _column_edges(rng, columns, row / width, fill)
            alignments = [s.alignments[rng.integers(len(s.alignments))] for _ in range(columns)]
            return [
                Cell(edges[2 * c], row * r, edges[2 * c + 1] - edges[2 * c], row, alignments[c])
                for c in range(columns)
                for r in range(rows)
            ]
    return None


def _column_edges(rng: np.random.Generator, columns: int, least: float, fill: float) -> np.ndarray:
    """Return left and right edges of the columns, as shares of the width: (left 0, right 0, left 1, right 1, ...).

    Columns and inner gaps get `least` each; random parts of the rest go to columns up to `fill`, to gaps beyond it.
    Either margin may be missing; a single column keeps at least one.
    """
    fill = min(fill, max(1 - least * (columns - 1), 0))
    margins = rng.integers(4) if columns > 1 else rng.integers(1, 4)
    parts = 1 - rng.random(2 * columns + 1)  # in (0, 1]: no part vanishes
    parts[0] *= margins >> 1
    parts[-1] *= margins & 1
    parts[1::2] *= max(fill - least * columns, 0) / parts[1::2].sum()
    parts[::2] *= max(1 - fill - least * (columns - 1), 0) / parts[::2].sum()
    parts[1:-1] += least
    return np.cumsum(parts)[:-1]
