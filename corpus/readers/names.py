"""What the names of published files say."""

import re
from collections.abc import Iterator

_SPLITS = {
    "test": "test", "testa": "test", "testb": "test", "testdev": "test", "challenge": "test",
    "val": "val", "validation": "val", "dev": "val", "minival": "val",
}  # fmt: skip

_FLICKR = re.compile(r"static\.?flickr\.com/(?:\d+/)*(\d{4,})_")
# Folders and names by which dialogue files (LLaVA's mixture and its kin) name the images of well-known sets.
_OWNED = [
    ("coco", re.compile(r"(?:^|/)COCO_(?:train|val|test)20\d\d_0*(\d{1,12})\.\w+$")),
    ("coco", re.compile(r"(?:^|/)(?:coco|(?:train|val|test)20\d\d)(?:/[^/]+)*/(?=\d{12}\.)0*(\d+)\.\w+$")),
    ("vg", re.compile(r"(?:^|/)(?:VG_100K(?:_2)?|gqa/images)/(n?\d+)\.\w+$")),
    ("openimages", re.compile(r"(?:^|/)textvqa/(?:.*/)?([0-9a-f]{16})\.\w+$")),
]


def split_of(path: str) -> str:
    """Tell the split by the words of a file's name, or by its folder, as the owners mark them; without a mark: train.

    Words, not letters: `retrieval_train.jsonl` is no validation set, `latest_train.jsonl` no test set.
    """
    folder, _, name = path.lower().rpartition("/")
    words = set(re.split(r"[^a-z]+", name)) | {folder.rpartition("/")[2]}
    return next((split for word, split in _SPLITS.items() if word in words), "train")


def flickr_id(url: str) -> str | None:
    """Return "flickr:ID" of the address of a photo on Flickr, or None."""
    found = _FLICKR.search(url)
    return f"flickr:{found[1]}" if found else None


def owners_ids(path: str) -> Iterator[str]:
    """Yield the ids ("coco:9", "vg:107", "openimages:...", "flickr:...") that an image's path or address gives away."""
    yield from (f"{owner}:{found[1]}" for owner, pattern in _OWNED if (found := pattern.search(path)))
    if photo := flickr_id(path):
        yield photo
