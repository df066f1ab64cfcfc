"""Lists of perceptual hashes: a line per view of an image, `phash:HEX  # name`, as corpus/readers/exclude.py reads."""

import functools
import glob
import os
from collections.abc import Iterator, Sequence

from cleaners.dedup import Matcher, matcher_of_hex, to_hex
from cleaners.phash import VIEWS, hash_views
from corpus.folder import OutputFolder
from corpus.readers.slices import open_file
from corpus.records import IMAGE_EXTENSIONS, BadImage, decode_image
from corpus.shards import RawSample, read_samples
from pipelines.engine import job


def write_list(path: str, images: Sequence[str]) -> None:
    """Write the hashes of images as an exclusion list. Images that cannot be hashed are named in comments."""
    lines = [line for image in images for line in _lines_of(image, _file_bytes(image))]
    folder, _, name = os.path.abspath(path).rpartition("/")
    OutputFolder(folder).write(name, "".join(f"{line}\n" for line in lines).encode())
    print(f"{path}: {sum(line.startswith('phash:') for line in lines) // VIEWS} images of {len(images)}")


def _file_bytes(path: str) -> bytes:
    with open_file(path) as file:
        return file.read()


def _lines_of(name: str, data: bytes) -> list[str]:
    short = name.rpartition("/")[2]
    try:
        hashes = hash_views(decode_image(data))
    except BadImage as error:
        return [f"# {short}: {error.kind}: {error}"]
    if hashes is None:
        return [f"# {short}: one colour, nothing to hash"]
    return [f"phash:{entry}  # {short}" for entry in to_hex(hashes)]


def lines_of(place: str) -> Iterator[str]:
    """Yield the lines of an exclusion list for a folder of images, shards, or a list that exists already."""
    files = (
        sorted(glob.glob(f"{glob.escape(place)}/**", recursive=True))
        if os.path.isdir(place)
        else job.find_inputs([place])
    )
    for path in files:
        ext = path.rpartition(".")[2].lower()
        if ext == "txt":
            yield from _file_bytes(path).decode().splitlines()
        elif ext == "tar":
            for raw in read_samples(path):
                images = list(_images(raw))
                if raw.problem and not images:  # what is not in the list is not kept out of training data
                    raise job.UserError(f"{path}: {raw.key} {raw.problem}: {raw.detail}")
                for _, data in images:
                    yield from _lines_of(raw.key, data)
        elif ext in (*IMAGE_EXTENSIONS, "jpeg"):
            yield from _lines_of(path, _file_bytes(path))


def store(output: str, lines: Sequence[str]) -> str | None:
    """Put the evaluation hashes where every worker finds them: in the output folder."""
    if not lines:
        return None
    entries = [line for line in lines if line.startswith("phash:")]
    if not entries:
        raise job.UserError("--against: no image could be hashed there, and no list of hashes found")
    url = output if "://" in output else os.path.abspath(output)
    folder = OutputFolder(f"{url.rstrip('/')}/.evaluation")
    folder.fs.makedirs(folder.root, exist_ok=True)
    folder.write("hashes.txt", "\n".join(entries).encode())
    return folder.url


@functools.lru_cache(maxsize=1)
def load(url: str | None) -> tuple[Matcher, list[str]] | None:
    """Return a stored list as (matcher, name of each entry); once per process."""
    if url is None:
        return None
    lines = OutputFolder(url).read("hashes.txt").decode().split("\n")
    entries = [line.partition("#") for line in lines]
    names = [name.strip() for _, _, name in entries]
    return matcher_of_hex([entry.strip().removeprefix("phash:") for entry, _, _ in entries]), names


def _images(raw: RawSample) -> Iterator[tuple[str, bytes]]:
    for name, data in raw.members.items():
        if name.rpartition(".")[2] in (*IMAGE_EXTENSIONS, "jpeg"):
            yield name, data
