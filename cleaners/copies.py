"""Are two images copies of one picture? Candidates of perceptual hashes are aligned and compared block by block.

ORB features give a similarity transform (also to the mirrored image), under which 16 x 16 blocks of both are
correlated: a weak block is a place where the pictures differ. Pages of text agree in layout, so that more of their
blocks must correlate. Flat graphics have few features, and a word more makes another of them: they are moved until they
correlate best, and must agree everywhere. Colour is compared apart, since correlation is blind to it.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from cleaners.phash import bars_cut

SIDE = 448  # pixels of the longer side; small images are enlarged
BLOCK = 16
MIN_LIKENESS = 0.5  # correlation of a weak block (the 15th percentile)
WEAK_SHARE = 15  # percent
PAGE_LIKENESS = 0.7
MARKED_LIKENESS, MARKED_SHARE = 0.8, 45  # a watermark lies over many blocks of a photo, and spares most
MOST_POINTS, CELLS = 700, 6  # features of an image, taken evenly from cells of a sixth of its width and height
RICH = 500  # features, which no flat graphic has
FEW_POINTS = 100  # with more of them, a photo whose features agree on nothing is another
MIN_INLIERS = 12
MIN_OVERLAP = 0.45  # of the area of the first image
MAX_ANGLE = 5.0  # degrees
MAX_COLOUR_GAP = 10.0  # of the mean a or b of CIE Lab, between two images that have colours
FLAT_GAP = 11.0  # grey levels, mean of any block, between two flat graphics; half size and JPEG 70 give up to 10
FLAT_LIKENESS, FEW = 0.3, 5  # correlation of a weak block of theirs, by its percentile
SHADE_GAP, NO_COLOUR = 20.0, 4.0  # of a block's mean a or b of CIE Lab
MIN_FIT = 0.85  # correlation of two flat graphics as a whole, when the one has been moved onto the other
MIN_TOLD = 30  # blocks with structure: one shape that has been moved on its ground is no copy
MIN_CONTAINED = 0.94  # of the area of one of them
_STEPS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
SAME_SHAPE = 0.04  # of the logarithms of width / height
EVEN = 1.5  # pixels of blur, which makes a small copy and its original alike
STRUCTURE = 4.0  # grey levels: a block that deviates less tells nothing


class Likeness(NamedTuple):
    """How alike two images are (-1 to 1, at `threshold` copies), by which of "photo", "flat", "page", and why not."""

    value: float
    threshold: float
    path: str
    why: str = ""

    @property
    def copies(self) -> bool:
        """Tell whether they are copies of one picture."""
        return self.value >= self.threshold


class Picture(NamedTuple):
    """An image made ready: grey uint8 [h, w], Lab's a and b float32 [h, w, 2], its features, what kind it is."""

    grey: np.ndarray
    colours: np.ndarray
    points: np.ndarray
    descriptors: np.ndarray | None
    page: bool
    flat: bool  # a graphic of few shades and features
    bare: "Picture | None" = None  # without its bars (letterbox, border, margin), where it has some


def prepare(image) -> Picture:
    """Make a Pillow RGB image ready to be compared."""
    pixels = np.asarray(image.convert("RGB"))
    inner = pixels[bars_cut(np.asarray(image.convert("L")))]
    return _ready(pixels, _ready(inner) if inner.shape != pixels.shape else None)


def _ready(pixels: np.ndarray, bare: Picture | None = None) -> Picture:
    scale = SIDE / max(pixels.shape[:2])
    size = max(16, round(pixels.shape[1] * scale)), max(16, round(pixels.shape[0] * scale))
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    places, descriptors = _features(grey)
    return Picture(grey, lab[..., 1:], places, descriptors, _is_page(grey), len(places) < RICH and _is_flat(grey), bare)


def _is_page(grey: np.ndarray) -> bool:
    """Tell a page of text: paper of one brightness, and ink in many places."""
    paper = np.bincount(grey.ravel() >> 3, minlength=32)
    blocks = _deviations(grey)
    return paper.max() > 0.4 * grey.size and (blocks > 20).mean() > 0.12


def _is_flat(grey: np.ndarray) -> bool:
    """Tell a graphic: most of it in few shades."""
    shades = np.sort(np.bincount(grey.ravel() >> 2, minlength=64))[::-1]
    return bool(shades[:4].sum() > 0.5 * grey.size)


def _deviations(grey: np.ndarray) -> np.ndarray:
    return _blocks(grey.astype(np.float32)).std(axis=(2, 3))


def _blocks(values: np.ndarray) -> np.ndarray:
    rows, columns = values.shape[0] // BLOCK, values.shape[1] // BLOCK
    return values[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK).swapaxes(1, 2)


def compare(first: Picture, second: Picture) -> Likeness:
    """Compare two pictures, also mirrored, and without their bars where they then have one shape; the best counts."""
    best = _either_way(first, second)
    for a, b in _without_bars(first, second):
        if best.copies:
            break
        best = max(best, _either_way(a, b), key=_margin)
    return best


def _margin(found: Likeness) -> float:
    return found.value - found.threshold


def _without_bars(first: Picture, second: Picture) -> Iterator[tuple[Picture, Picture]]:
    """Yield the pairs of one shape in which either or both have no bars."""
    for a, b in ((first, second.bare), (first.bare, second), (first.bare, second.bare)):
        if a and b and abs(np.log(_aspect(a) / _aspect(b))) < SAME_SHAPE:
            yield a, b


def _aspect(picture: Picture) -> float:
    return picture.grey.shape[1] / picture.grey.shape[0]


def _either_way(first: Picture, second: Picture) -> Likeness:
    as_is = _compare(first, second)
    return as_is if as_is.copies else max(as_is, _compare(first, _mirrored(second)), key=lambda found: found.value)


def _features(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places float32 [n, 2] in pixels, and descriptors uint8 [n, 32] or None where there are none."""
    orb = cv2.ORB.create(3 * MOST_POINTS)
    points, descriptors = orb.compute(grey, _spread(orb.detect(grey, None), grey.shape))
    return np.array([point.pt for point in points], np.float32).reshape(-1, 2), descriptors


def _spread(points: Sequence[cv2.KeyPoint], shape: tuple[int, ...]) -> list[cv2.KeyPoint]:
    """Choose the strongest of every cell in turn; else the letters of a watermark would be all that is looked at."""
    if len(points) <= MOST_POINTS:
        return list(points)
    places = np.array([point.pt for point in points]) * CELLS / (shape[1], shape[0])
    strength = -np.array([point.response for point in points])
    cell = places.astype(int) @ (1, CELLS)
    order = np.lexsort((strength, cell))
    turn = np.empty(len(points), int)
    turn[order] = np.arange(len(points)) - np.searchsorted(cell[order], cell[order])
    return [points[i] for i in np.lexsort((strength, turn))[:MOST_POINTS]]


def _mirrored(picture: Picture) -> Picture:
    grey = np.ascontiguousarray(picture.grey[:, ::-1])
    places, descriptors = _features(grey)
    colours = np.ascontiguousarray(picture.colours[:, ::-1])
    return picture._replace(grey=grey, colours=colours, points=places, descriptors=descriptors)


def _compare(first: Picture, second: Picture) -> Likeness:
    page = first.page and second.page
    if first.flat and second.flat and not page:
        return _flat(first, second)
    threshold, path = (PAGE_LIKENESS, "page") if page else (MIN_LIKENESS, "photo")
    found = _transform(first, second)
    if found is None:
        return _flat(first, second)
    size = first.grey.shape[1], first.grey.shape[0]
    inside = cv2.warpAffine(np.full(second.grey.shape, 255, np.uint8), found, size) > 254
    if inside.mean() < MIN_OVERLAP:
        return Likeness(-1.0, threshold, path, f"overlap {inside.mean():.2f}")
    grey = cv2.warpAffine(second.grey, found, size, flags=cv2.INTER_AREA)
    colours = cv2.warpAffine(second.colours, found, size)
    if _colour_gap(first.colours[inside], colours[inside]) > MAX_COLOUR_GAP:
        return Likeness(-1.0, threshold, path, "colours")
    correlations = _correlations(*_equally_sharp(first.grey, grey, found), inside)
    if correlations is None:
        return Likeness(-1.0, threshold, path, "nothing to compare")
    weak, most = np.percentile(correlations, [WEAK_SHARE, MARKED_SHARE])
    if path == "photo" and not (first.flat or second.flat) and most >= MARKED_LIKENESS:
        return Likeness(float(most), MARKED_LIKENESS, "marked" if weak < threshold else path)
    return Likeness(float(weak), threshold, path)


def _equally_sharp(first: np.ndarray, second: np.ndarray, transform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Blur the sharper of two images that lie on one another, whose scales differ, and both a little."""
    scale = float(np.sqrt(abs(np.linalg.det(transform[:, :2]))))
    return cv2.GaussianBlur(first, (0, 0), max(0.8, 0.8 * scale)), cv2.GaussianBlur(second, (0, 0), 0.8)


def _transform(first: Picture, second: Picture) -> np.ndarray | None:
    """Return the affine transform (2 x 3) that lays the second on the first; None where features agree on none."""
    if first.descriptors is None or second.descriptors is None or min(len(first.points), len(second.points)) < 20:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(second.descriptors, first.descriptors, k=2)
    good = [pair[0] for pair in pairs if len(pair) == 2 and pair[0].distance < 0.85 * pair[1].distance]
    if len(good) < MIN_INLIERS:
        return None
    source = second.points[[match.queryIdx for match in good]]
    target = first.points[[match.trainIdx for match in good]]
    cv2.setRNGSeed(0)
    found, inliers = cv2.estimateAffine2D(source, target, method=cv2.RANSAC, ransacReprojThreshold=3.0)
    if found is None or inliers.sum() < MIN_INLIERS or not _upright(found):
        return None
    return found


def _upright(transform: np.ndarray) -> bool:
    """Tell a transform that scales and moves and hardly turns, from one that bends."""
    (a, b), (c, d) = transform[:, :2]
    angle, shear = abs(np.degrees(np.arctan2(c, a))), abs(np.degrees(np.arctan2(-b, d)))
    return a > 0.2 and d > 0.2 and angle < MAX_ANGLE and shear < MAX_ANGLE and 0.4 < a / d < 2.5


def _flat(first: Picture, second: Picture) -> Likeness:
    """Compare flat graphics: a shape or a word more is another picture, so that they must agree in every block.

    Features are few and say little: the one is moved on the other until they correlate best, and may be cut out of it.
    """
    found = _everywhere_alike(first, second, _stretched(first, second))
    if min(len(first.points), len(second.points)) > FEW_POINTS and not (first.flat and second.flat):
        return found
    for start, scales in ((_stretched, (0.25, 1.0)), (_transform, (1.0,))):
        if found.copies:
            break
        transform = _moved(first.grey, second.grey, start(first, second), scales)
        if transform is not None:
            found = _everywhere_alike(first, second, transform, MIN_TOLD)
    return found


def _stretched(first: Picture, second: Picture) -> np.ndarray:
    """Return the transform that lays the second on the first whole."""
    width, height = (a / b for a, b in zip(first.grey.shape[::-1], second.grey.shape[::-1], strict=True))
    return np.array([[width, 0, 0], [0, height, 0]])


def _moved(first: np.ndarray, second: np.ndarray, start: np.ndarray | None, scales: Sequence[float]):
    """Improve the transform of the second image onto the first, at these scales; None where they do not fit.

    Enhanced correlation coefficient, Evangelidis and Psarakis 2008.
    """
    if start is None:
        return None
    back = cv2.invertAffineTransform(start).astype(np.float32)
    for scale in scales:
        here, there = (
            cv2.resize(each, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for each in (first, second)
        )
        back[:, 2] *= scale
        everywhere = np.full(there.shape, 255, np.uint8)
        try:
            fit, better = cv2.findTransformECC(here, there, back, cv2.MOTION_AFFINE, _STEPS, everywhere, 5)
        except cv2.error:  # they correlate nowhere
            return None
        if fit < MIN_FIT:
            return None
        back = np.array(better, np.float32)
        back[:, 2] /= scale
    found = cv2.invertAffineTransform(back)
    return found if _upright(found) and abs(np.log(found[0, 0] / found[1, 1])) < SAME_SHAPE else None


def _everywhere_alike(first: Picture, second: Picture, transform: np.ndarray, least: int = 4) -> Likeness:
    """Compare where both are: one must lie in the other but for its corners, and every block must agree.

    least: blocks with structure that there must be.
    """
    size = first.grey.shape[1], first.grey.shape[0]
    inside = cv2.warpAffine(np.full(second.grey.shape, 255, np.uint8), transform, size) > 254
    area = abs(np.linalg.det(transform[:, :2])) * second.grey.size
    if max(inside.mean(), inside.sum() / area) < MIN_CONTAINED or inside.mean() < MIN_OVERLAP:
        return Likeness(-1.0, FLAT_LIKENESS, "flat", "neither lies in the other")
    grey, colours = (cv2.warpAffine(image, transform, size) for image in (second.grey, second.colours))
    here, grey = (cv2.GaussianBlur(image, (0, 0), EVEN) for image in (first.grey, grey))
    whole = np.asarray(_blocks(inside).all(axis=(2, 3)))
    gap = np.abs(_blocks(here.astype(np.float32)) - _blocks(grey.astype(np.float32))).mean(axis=(2, 3))[whole]
    if gap.max(initial=0) > FLAT_GAP:
        return Likeness(-1.0, FLAT_LIKENESS, "flat", f"a block differs by {gap.max():.0f}")
    if _shade_gap(first.colours, colours, whole) > SHADE_GAP:
        return Likeness(-1.0, FLAT_LIKENESS, "flat", "colours")
    correlations = _correlations(here, grey, inside)
    if correlations is None or len(correlations) < least:
        return Likeness(-1.0, FLAT_LIKENESS, "flat", "nothing to compare")
    return Likeness(float(np.percentile(correlations, FEW)), FLAT_LIKENESS, "flat")


def _shade_gap(first: np.ndarray, second: np.ndarray, whole: np.ndarray) -> float:
    """Return the largest gap of a block's mean a or b; 0 where no block of one has a colour, as in a grey copy."""
    means = [np.stack([_blocks(shades[..., i]).mean(axis=(2, 3))[whole] for i in (0, 1)]) for shades in (first, second)]
    if min(np.abs(each).max(initial=0) for each in means) < NO_COLOUR:
        return 0.0
    return float(np.abs(means[0] - means[1]).max())


def _colour_gap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the gap of mean a or b (the larger); 0 where either has hardly a colour, as a grey copy has none."""
    if min(np.abs(first).mean(), np.abs(second).mean()) < 2:
        return 0.0
    return float(np.abs(first.mean(axis=0) - second.mean(axis=0)).max())


def _correlations(first: np.ndarray, second: np.ndarray, inside: np.ndarray) -> np.ndarray | None:
    """Return the correlation of each block inside that has structure in either image; None where hardly one has."""
    a, b = _blocks(first.astype(np.float32)), _blocks(second.astype(np.float32))
    whole = _blocks(inside).all(axis=(2, 3))
    a, b = (blocks - blocks.mean(axis=(2, 3), keepdims=True) for blocks in (a, b))
    spread = a.std(axis=(2, 3)), b.std(axis=(2, 3))
    told = whole & (np.maximum(*spread) > STRUCTURE)
    if told.sum() < 4:
        return None
    found = (a * b).mean(axis=(2, 3)) / (np.maximum(spread[0], 1) * np.maximum(spread[1], 1))
    return found[told]
