"""From JPEG files to what a model takes: on the CPU's cores, and by the GPU's own decoder."""

from pathlib import Path

import numpy as np
import torch

from benchmarks import clip_scoring
from benchmarks.gpu.day import Day
from benchmarks.gpu.machine import clock
from trainer.batch import resize

PIXELS = 448


def photos(day: Day) -> list[bytes]:
    return [path.read_bytes() for path in sorted((Path(day.prepared) / "photos").glob("*.jpg"))]


def decode_on_the_device(day: Day) -> dict:
    """Images per second of torchvision's decoder (nvJPEG on a GPU) and resize, beside one core of the loader's.

    Grey levels are mean absolute differences of what the model would see.
    """
    from torchvision.io import ImageReadMode, decode_jpeg

    files = photos(day)
    tensors = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
    ours = [torch.from_numpy(np.ascontiguousarray(resize(data, PIXELS))) for data in files]

    def decode():
        return decode_jpeg(tensors, mode=ImageReadMode.RGB, device=day.device)

    def prepare():
        return [_resize(image) for image in decode()]

    difference = [(a.cpu().float() - b.float()).abs().mean().item() for a, b in zip(prepare(), ours, strict=True)]
    times = 1 if day.tiny else 10
    return {
        "decoded, images/s": len(files) / clock(day, decode, times),
        "decoded and resized, images/s": len(files) / clock(day, prepare, times),
        "one core of the loader, images/s": len(files) / clock(day, lambda: [resize(f, PIXELS) for f in files], 1),
        "difference, grey levels": sum(difference) / len(difference),
        "checks": {"the same picture": max(difference) < 2.0},
    }


def _resize(image):
    size = (PIXELS, PIXELS)
    resized = torch.nn.functional.interpolate(image[None].float(), size, mode="bicubic", antialias=True)
    return resized[0].clamp(0, 255).round().to(torch.uint8)


def clip_pipeline(day: Day, model: str) -> dict:
    """Pairs per second of CLIP scoring, and of its parts (benchmarks/clip_scoring.py)."""
    name = "tiny" if day.tiny else model
    loaded = clip_scoring.load(name, day.device)
    count, decoders = (64, 2) if day.tiny else (4096, 16)
    files = photos(day)
    pairs = [(files[i % len(files)], f"Photo {i % 7} of a harbour at dusk") for i in range(count)]
    figures = clip_scoring.measure(loaded, pairs, decoders)
    share = figures["end to end"] / figures["bare forward pass, preloaded tensors"]
    return {"model": name} | figures | {"end to end, share of the bare pass": share}
