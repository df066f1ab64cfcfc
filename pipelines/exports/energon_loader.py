"""Loads cleaned samples as Megatron Energon's types. Written by Gristmill beside the shards; needs torch and Pillow.

Each function takes the decoded parts of a sample (`json` and one image) and returns the fields of Energon's type.
Coordinates are pixels of the stored image, origin top-left; a line's box is (x, y, width, height) around its quad.
"""

import io

import numpy as np
import torch
from PIL import Image


def caption(sample: dict) -> dict:
    """Fields of CaptioningSample."""
    return {"image": _image(sample), "caption": sample["json"]["text"]}


def vqa(sample: dict) -> dict:
    """Fields of VQASample: one answer."""
    told = sample["json"]["annotations"]
    return {"image": _image(sample), "context": told["question"], "answers": [told["answer"]]}


def ocr(sample: dict) -> dict:
    """Fields of OCRSample: lines with upright boxes; their quads are in the json alone (crude.yaml)."""
    lines = sample["json"]["annotations"]["lines"]
    quads = torch.tensor([line["quad"] for line in lines], dtype=torch.float32).reshape(-1, 4, 2)
    low, high = quads.amin(1), quads.amax(1)
    words = [line["text"] for line in lines]
    return {
        "image": _image(sample), "text": "\n".join(words), "lines_text": words,
        "lines_boxes": torch.cat([low, high - low], 1),
    }  # fmt: skip


def text(sample: dict) -> dict:
    """Fields of TextSample."""
    return {"text": sample["json"]["text"]}


def _image(sample: dict) -> torch.Tensor:
    """Return the picture, float32 [3, H, W] in [0, 1]; WebP, which webdataset does not decode, is decoded here."""
    found = next(sample[name] for name in ("jpg", "png", "webp") if name in sample)
    if isinstance(found, torch.Tensor):
        return found
    pixels = np.array(Image.open(io.BytesIO(found)).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255
