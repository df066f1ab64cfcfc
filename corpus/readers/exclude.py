"""Lists of images that must not be trained on: test and validation images, by id and by perceptual hash.

A list is a text file with one entry per line: `coco:458752`, `vg:2331963`, `openimages:003a8ae2ef43b901`,
`file:0001.png`, `flickr:4385058960`, or `phash:` and 80 hexadecimal digits as `pipelines/dedup.py --list` writes them;
`#` starts a comment. `text:` lines are hashed n-grams of questions and captions (cleaners/overlap.py), which no image
is excluded by. The published files serve as lists too: RefCOCO's refs(*).p (every image of a split other than train),
COCO JSON (every image), Karpathy's dataset_*.json (val and test), questions of VQAv2, TextVQA and GQA.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from corpus.evaluation import OWNERS
from corpus.readers.json_scan import scan
from corpus.readers.names import flickr_id
from corpus.readers.refs_pickle import load_refs
from corpus.readers.rows import BadFile
from corpus.readers.slices import open_file

HASH_DIGITS = 80
_OWNERS = (*OWNERS, "ocr_vqa", "docvqa", "ai2d", "coyo", "file")
_HEX = set("0123456789abcdef")


@dataclass
class Excluded:
    """Ids as "coco:458752", perceptual hashes as hexadecimal strings, texts as (words, their n-grams' hashes)."""

    ids: set[str] = field(default_factory=set)
    hashes: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)  # "N:HEX", as cleaners/overlap.py writes and reads them

    def match(self, ids: Iterable[str]) -> str | None:
        """Return the first of an image's ids that is excluded, or None."""
        return next((identity for identity in ids if identity in self.ids), None)


def load_excluded(paths: list[str]) -> Excluded:
    """Read exclusion lists. Raises BadFile, naming the line, for what is no entry."""
    excluded = Excluded()
    for path in paths:
        if path.endswith(".p"):
            excluded.ids |= {f"coco:{ref['image_id']}" for ref in load_refs(path) if ref.get("split") != "train"}
        elif path.endswith(".json"):
            excluded.ids |= _ids_of_json(path)
        else:
            _read_list(path, excluded)
    return excluded


def _ids_of_json(path: str) -> set[str]:
    ids = {identity for key, record in records_of(path) for identity in _ids_of(key, record)}
    if not ids:
        raise BadFile(
            f"{path}: no images[] in it; an --exclude list is COCO JSON, refs(*).p, or text with an id per line"
        )
    return ids


def records_of(path: str) -> Iterator[tuple[str, dict]]:
    """Yield (key of the array or of the record, record) of a published JSON file, those of training splits left out."""
    with open_file(path) as file:
        for found in scan(file):
            if isinstance(found.value, dict) and found.value.get("split") not in ("train", "restval"):
                yield str(found.key), found.value


def _ids_of(key: str, value: dict) -> Iterator[str]:
    """Yield the ids of a record under `key`: COCO's and MDETR's images[], Karpathy's, Nocaps', TextVQA's, GQA's."""
    if key == "data" and "image_id" in value:
        yield f"openimages:{value['image_id']}"
    elif key == "questions" and str(value.get("image_id")).isdigit():
        yield f"coco:{int(value['image_id'])}"
    elif "imageId" in value:
        yield f"vg:{value['imageId']}"
    elif key == "images":
        yield from _ids_of_image(value)


def _ids_of_image(value: dict) -> Iterator[str]:
    if "open_images_id" in value:
        yield f"openimages:{value['open_images_id']}"
    elif "cocoid" in value or "sentids" not in value:  # MDETR's images are expressions; their image is original_id
        yield f"coco:{value.get('cocoid', value.get('original_id', value.get('id')))}"
    else:  # Flickr30k's
        yield f"flickr:{str(value.get('filename')).partition('.')[0]}"
    if found := flickr_id(str(value.get("flickr_url"))):
        yield found


def _read_list(path: str, excluded: Excluded) -> None:
    with open_file(path) as file:
        for number, line in enumerate(file, 1):
            entry = line.decode("utf-8-sig", "replace").partition("#")[0].strip()
            owner, colon, value = entry.partition(":")
            if not entry:
                continue
            if owner == "phash" and len(value) == HASH_DIGITS and not set(value) - _HEX:
                excluded.hashes.append(value)
            elif owner == "text" and is_text(value):
                excluded.texts.append(value)
            elif colon and owner in _OWNERS and value:
                excluded.ids.add(entry)
            else:
                raise BadFile(
                    f"{path}:{number}: {entry[:60]!r} is no entry; expected OWNER:ID with OWNER one of "
                    f"{', '.join(_OWNERS)}, or phash: and {HASH_DIGITS} hexadecimal digits"
                )


def is_text(value: str) -> bool:
    """Tell whether a value is `N:HEX`, the hashes (16 digits each) of a text's runs of N words."""
    words, _, hashes = value.partition(":")
    return words.isdigit() and int(words) > 0 and bool(hashes) and len(hashes) % 16 == 0 and not set(hashes) - _HEX
