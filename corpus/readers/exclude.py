"""Lists of images that must not be trained on: test and validation images, by id and by perceptual hash.

A list is a text file with one entry per line: `coco:458752`, `vg:2331963`, `openimages:003a8ae2ef43b901`,
`file:0001.png`, or `phash:` and 80 hexadecimal digits as `pipelines/dedup.py --list` writes them; `#` starts a comment.
The published files serve as lists too: RefCOCO's refs(*).p (every image of a split other than train) and COCO JSON
(every image).
"""

from dataclasses import dataclass, field

from corpus.readers.json_scan import scan
from corpus.readers.refs_pickle import load_refs
from corpus.readers.rows import BadFile, ImageRef
from corpus.readers.slices import open_file

HASH_DIGITS = 80
_OWNERS = ("coco", "vg", "openimages", "ocr_vqa", "docvqa", "ai2d", "coyo", "file")


@dataclass
class Excluded:
    """Ids as "coco:458752" and perceptual hashes as hexadecimal strings."""

    ids: set[str] = field(default_factory=set)
    hashes: list[str] = field(default_factory=list)

    def match(self, image: ImageRef) -> str | None:
        """Return the id by which an image is excluded, or None."""
        return next((identity for identity in image.ids if identity in self.ids), None)


def load_excluded(paths: list[str]) -> Excluded:
    """Read exclusion lists. Raises BadFile, naming the line, for what is no entry."""
    excluded = Excluded()
    for path in paths:
        if path.endswith(".p"):
            excluded.ids |= {f"coco:{ref['image_id']}" for ref in load_refs(path) if ref.get("split") != "train"}
        elif path.endswith(".json"):
            excluded.ids |= _coco_ids(path)
        else:
            _read_list(path, excluded)
    return excluded


def _coco_ids(path: str) -> set[str]:
    with open_file(path) as file:
        values = (found.value for found in scan(file) if found.key == "images" and isinstance(found.value, dict))
        # MDETR's images are expressions; the COCO image is their original_id.
        ids = {f"coco:{value.get('original_id', value.get('id'))}" for value in values}
    if not ids:
        raise BadFile(
            f"{path}: no images[] in it; an --exclude list is COCO JSON, refs(*).p, or text with an id per line"
        )
    return ids


def _read_list(path: str, excluded: Excluded) -> None:
    with open_file(path) as file:
        for number, line in enumerate(file, 1):
            entry = line.decode("utf-8-sig", "replace").partition("#")[0].strip()
            owner, colon, value = entry.partition(":")
            if not entry:
                continue
            if owner == "phash" and len(value) == HASH_DIGITS and not set(value) - set("0123456789abcdef"):
                excluded.hashes.append(value)
            elif colon and owner in _OWNERS and value:
                excluded.ids.add(entry)
            else:
                raise BadFile(
                    f"{path}:{number}: {entry[:60]!r} is no entry; expected OWNER:ID with OWNER one of "
                    f"{', '.join(_OWNERS)}, or phash: and {HASH_DIGITS} hexadecimal digits"
                )
