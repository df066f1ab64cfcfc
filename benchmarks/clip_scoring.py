"""Pairs per second of CLIP scoring from encoded images to scores: against the bare forward pass on preloaded tensors,
against one pair at a time, and what one decoding core feeds.

    python benchmarks/clip_scoring.py                                                       # the tiny model, CPU
    python benchmarks/clip_scoring.py --model ViT-B-32 --model ViT-L-14 --device cuda --decoders 16   # random weights
"""

import argparse
import io
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from cleaners import clip  # noqa: E402


def load(name: str, device: str, precision: str | None = None, batch: int | None = None) -> clip.Clip:
    """The tiny model, or an open_clip architecture with random weights, which are as fast as any."""
    if name == "tiny":
        return clip.load("tiny", device=device, precision=precision, batch=batch)
    import open_clip

    precision = precision or ("fp32" if device == "cpu" else "fp16")
    model, _, transform = open_clip.create_model_and_transforms(name, precision=precision, device=device)
    tokenize = open_clip.get_tokenizer(name)
    return clip.wrap(name, model, transform, tokenize, device=device, precision=precision, batch=batch)


def make_pairs(count: int, side: int) -> list[tuple[bytes, str]]:
    """Encoded pairs; 200 different ones, repeated."""
    from pipelines.proof.scenes.scene import scene

    pairs = []
    for i in range(min(count, 200)):
        drawn, file = scene(f"speed/{i}", side), io.BytesIO()
        drawn.image.save(file, "JPEG", quality=85)
        pairs.append((file.getvalue(), drawn.caption_en))
    return [pairs[i % len(pairs)] for i in range(count)]


def wait(model: clip.Clip) -> None:
    if model.device != "cpu":
        torch.cuda.synchronize()


def clock(model: clip.Clip, work, count: int) -> float:
    """Pairs per second of `work`: by the wall clock on a GPU, by CPU time on the CPU, where other work may run."""
    now = time.process_time if model.device == "cpu" else time.perf_counter
    started = now()
    work()
    wait(model)
    return count / (now() - started)


def measure(model: clip.Clip, pairs: list[tuple[bytes, str]], decoders: int) -> dict[str, float]:
    pixels = [clip.prepare(model, data) for data, _ in pairs]
    tokens = model.tokenize([text for _, text in pairs])
    bare, cut = bare_forward(model, pixels, tokens), bare_forward(model, pixels, tokens, cut_texts=True)
    cut()  # warm up
    list(clip.score_stream(model, pairs[: 2 * model.batch], decoders))
    few = pairs[: max(8, len(pairs) // 16)]
    single = clip.Clip(**{name: getattr(model, name) for name in model.__slots__} | {"batch": 1})
    figures = {
        "bare forward pass, preloaded tensors": clock(model, bare, len(pairs)),
        "the same, texts cut to their length": clock(model, cut, len(pairs)),
        "end to end": clock(model, lambda: list(clip.score_stream(model, pairs, decoders)), len(pairs)),
        "one pair at a time": clock(model, lambda: [next(clip.score_stream(single, [p], 1)) for p in few], len(few)),
        "decode and resize alone, per core": decoding_speed(model, pairs),
    }
    if model.device == "cpu":  # decoding and the model share the core: take the time of the one from that of both
        both, decoding = 1 / figures["end to end"], 1 / figures["decode and resize alone, per core"]
        figures["end to end, decoding not counted"] = 1 / (both - decoding)
    return figures


def bare_forward(model: clip.Clip, pixels: list, tokens, cut_texts: bool = False):
    """The two towers over normalised tensors that lie on the device; texts at the model's full width, or cut."""
    images = (torch.from_numpy(np.stack(pixels)).to(model.device).float() - model.mean) / model.std
    images = images.to(model.dtype or torch.float32)
    tokens = tokens if cut_texts else tokens.to(model.device)

    def run():
        with torch.inference_mode():
            for part, text in zip(images.split(model.batch), tokens.split(model.batch), strict=True):
                model.model.encode_image(part)
                if not cut_texts:
                    model.model.encode_text(text)
            if cut_texts:
                clip._text_features(model, tokens)

    return run


def decoding_speed(model: clip.Clip, pairs) -> float:
    started = time.process_time()
    for data, _ in pairs:
        clip.prepare(model, data)
    return len(pairs) / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", action="append", help="tiny or an open_clip architecture; may be repeated")
    add("--device", default="cpu")
    add("--precision", choices=clip.PRECISIONS)
    add("--batch", type=int)
    add("--decoders", type=int, default=2)
    add("--pairs", type=int, default=1024)
    add("--side", type=int, default=384, help="pixels of the encoded images")
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)
    unit = "pairs per CPU second" if args.device == "cpu" else "pairs/s"
    for name in args.model or ["tiny"]:
        model = load(name, args.device, args.precision, args.batch)
        figures = measure(model, make_pairs(args.pairs, args.side), args.decoders)
        bare = figures["bare forward pass, preloaded tensors"]
        print(f"{name}, {args.device}, {args.side} x {args.side} JPEG, {args.decoders} decoders: {unit}")
        for what, speed in figures.items():
            print(f"  {what:<40}{speed:>10.1f}{100 * speed / bare:>8.1f} % of the bare pass", flush=True)


if __name__ == "__main__":
    main()
