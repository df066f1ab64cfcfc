"""Cleaned folders for tests: drawn scenes as samples of every task, written through the jobs' own sink."""

import io
from pathlib import Path

import numpy as np

from corpus.folder import OutputFolder
from corpus.ledger import Fuse
from corpus.records import EncodedImage, Sample
from corpus.splits import Sink, Split
from pipelines.proof.scenes.scene import scene

SIZE = 96


def drawn(seed: int, kinds=("several",)):
    """Return (encoded image, scene)."""
    picture = scene(seed, SIZE, kinds=kinds)
    file = io.BytesIO()
    picture.image.save(file, "JPEG" if seed % 2 else "PNG")
    return EncodedImage(file.getvalue(), "jpg" if seed % 2 else "png"), picture


def sample(dataset: str, task: str, number: int, **changes) -> Sample:
    """Return a valid sample of a task; `changes` replace its fields."""
    image, picture = drawn(number, ("sign",) if task == "ocr" else ("several",))
    fields = {
        "key": f"{dataset}/00000/{number:06d}", "dataset": dataset, "task": task, "language": "en",
        "text": picture.caption_en, "width": SIZE, "height": SIZE, "images": [image],
        "annotations": _annotations(task, picture),
    }  # fmt: skip
    if task == "text":
        fields |= {"images": [], "width": None, "height": None, "text": (picture.caption_en + "\n") * (1 + number % 40)}
    return Sample(**fields | changes)


def _annotations(task: str, picture) -> dict:
    if task in ("vqa", "ocr_vqa"):
        return {"question": f"What stands before {picture.background}?", "answer": picture.objects[0].name}
    if task in ("grounded_caption", "referring", "region_caption"):
        return {"regions": picture.regions_en}
    if task == "ocr":
        return {"lines": [{"text": word.text, "quad": word.quad} for word in picture.words]}
    if task == "chat":
        return {
            "turns": [
                {"role": "user", "text": "What is this?", "images": [0]},
                {"role": "assistant", "text": picture.caption_en, "images": []},
            ]
        }
    return {}


def write_cleaned(root: Path, dataset: str, samples: list[Sample], splits: int = 1) -> None:
    """Write a cleaned folder `root/dataset` of so many splits."""
    folder = OutputFolder(str(root / dataset))
    folder.prepare({"job": "test", "guard": {"sets": {}, "exclude": [], "unguarded": []}})
    for number in range(splits):
        split = Split(f"{number:05d}", {})
        with Sink(folder, split, scores={}, settings_digest="", fuse=Fuse()) as sink:
            sink.expects(np.arange(len(samples[number::splits])))
            for row, one in enumerate(samples[number::splits]):
                sink.keep(one, row)
            sink.commit()
