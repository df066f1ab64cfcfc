"""Photos to lie behind the page and textures to print on: from files and shards, or made where none are given."""

import tarfile
from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

import fsspec
import numpy as np

from corpus.damage import CorruptSample
from corpus.records import BadImage
from corpus.shards import IndexedShard, indexed
from synth_ocr.textures import colour_clouds, crumpled_paper, decode_photo

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_CACHED_BYTES = 256 << 20  # of decoded photos, in each worker
_PHOTOS_IN_SKIMAGE = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png", "grass.png",
    "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip


class Photos:
    """Photos to lie behind the page, from image files and shards; without any, scikit-image's and coloured clouds.

    Decoded photos are kept, the most recently used ones, up to a fixed number of bytes.
    """

    def __init__(self, files: Sequence[str]):
        self._shards = {file: _open_shard(file) for file in files if file.endswith(".tar")}
        self._files = list(files) or _built_in()
        self._ends = list(accumulate(len(self._shards[f]) if f in self._shards else 1 for f in self._files))
        if not self._ends[-1]:
            raise BadImage("no_backgrounds", f"the background shards hold no photos: {', '.join(files)}")
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._bytes = 0

    def pick(self, rng: np.random.Generator) -> tuple[np.ndarray, str]:
        """Return a random photo (uint8, height x width x 3) and its name. BadImage names the photo at fault."""
        chosen = int(rng.integers(self._ends[-1]))
        number = int(np.searchsorted(self._ends, chosen, side="right"))
        inner = chosen - (self._ends[number - 1] if number else 0)
        name = Path(self._files[number]).name + (f" sample {inner}" if self._files[number] in self._shards else "")
        if chosen not in self._cache:
            try:
                self._remember(chosen, self._decode(self._files[number], inner))
            except BadImage as error:
                raise BadImage(error.kind, f"background {name}: {error}") from None
        self._cache.move_to_end(chosen)
        return self._cache[chosen], name

    def _decode(self, file: str, inner: int) -> np.ndarray:
        if file.startswith("clouds-"):
            return colour_clouds(np.random.default_rng([20260101, int(file[7:])]))
        if file in self._shards:
            return decode_photo(self._shards[file][inner])
        with fsspec.open(file, "rb") as stream:
            return decode_photo(stream.read())

    def _remember(self, chosen: int, photo: np.ndarray) -> None:
        self._cache[chosen] = photo
        self._bytes += photo.nbytes
        while self._bytes > _CACHED_BYTES and len(self._cache) > 1:
            self._bytes -= self._cache.popitem(last=False)[1].nbytes


class _OurShard:
    """The photos of a shard that has an index."""

    def __init__(self, shard: IndexedShard):
        self._shard = shard

    def __len__(self) -> int:
        return len(self._shard)

    def __getitem__(self, i: int) -> bytes:
        try:
            key, members = self._shard[i]
        except CorruptSample as error:
            raise BadImage(error.kind, str(error)) from None
        for ext, data in members.items():
            if f".{ext}".endswith(SUFFIXES):
                return data
        raise BadImage("not_an_image", f"sample {key} has no image member")


class _AnyTar:
    """The photos of a tar without index: where they lie is found by one walk over its headers."""

    def __init__(self, file: str):
        self._file = file
        try:
            with fsspec.open(file, "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
                self._places = [(m.offset_data, m.size) for m in tar if m.name.lower().endswith(SUFFIXES)]
        except tarfile.TarError as error:
            raise BadImage("bad_shard", f"{file} is no uncompressed tar: {error}") from None

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: int) -> bytes:
        offset, size = self._places[i]
        with fsspec.open(self._file, "rb") as stream:
            stream.seek(offset)
            return stream.read(size)


def _open_shard(file: str) -> "_OurShard | _AnyTar":
    shard = indexed(file)
    return _AnyTar(file) if shard is None else _OurShard(shard)


def _built_in() -> list[str]:
    """Name the photos in scikit-image's wheel (which synthtiger depends on) and as many clouds."""
    folder = Path(find_spec("skimage").submodule_search_locations[0]) / "data"
    photos = [str(folder / name) for name in _PHOTOS_IN_SKIMAGE if (folder / name).is_file()]
    return photos + [f"clouds-{i}" for i in range(len(photos))]


def load_papers(files: Sequence[str]) -> list[np.ndarray]:
    """Decode paper textures to grey (uint8, height x width); without files, crumple six sheets. BadImage names one."""
    if not files:
        return _crumpled_papers()
    papers = []
    for file in files:
        try:
            with fsspec.open(file, "rb") as stream:
                papers.append(decode_photo(stream.read(), grey=True))
        except BadImage as error:
            raise BadImage(error.kind, f"paper {file}: {error}") from None
    return papers


@cache
def _crumpled_papers() -> list[np.ndarray]:
    return [crumpled_paper(np.random.default_rng([20260102, i])) for i in range(6)]
