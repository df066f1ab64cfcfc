"""Image-text similarity with any open_clip model, in batches: a cosine in [-1, 1] per pair.

Pure: image bytes and captions in, scores out; thresholds are the business of the rules. torch and open_clip are
imported when a model is loaded, not before. A score belongs to its pair alone: the pairs that shared its batch
change it by rounding only (below 1e-5 in fp32, 1e-3 in bf16), because texts are cut to a width that depends on
nothing but their own length and short batches are filled up, so that the model sees few shapes. An image that
cannot be decoded is an error (BadImage), never a score.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from corpus.records import BadImage, decode_image

TINY = Path(__file__).with_name("tiny_clip")
PRECISIONS = ("fp32", "bf16", "fp16")
SPEC_HELP = (
    "`tiny` (the model of this repository, for tests and the demo), NAME:WEIGHTS with an open_clip name and a "
    "pretrained tag or a checkpoint file (ViT-B-32:laion2b_s34b_b79k, xlm-roberta-base-ViT-B-32:laion5b_s13b_b90k for "
    "many languages), hf-hub:OWNER/REPO, or a folder with open_clip_config.json"
)

_BUCKET = 16  # text widths are rounded up to this many tokens


@dataclass(frozen=True, slots=True)
class Clip:
    """A loaded model. `resize` maps an RGB image to the model's input size; `batch` pairs go through it at a time."""

    name: str
    model: Any
    resize: Callable[[Image.Image], Image.Image]
    tokenize: Callable[[list[str]], Any]
    mean: Any  # tensors [1, 3, 1, 1] on the device, in units of 0..255
    std: Any
    dtype: Any  # of the pixels that the model takes
    device: str
    batch: int


def parse_spec(spec: str) -> tuple[str, str | None]:
    """(open_clip model name, weights) of a model given as SPEC_HELP says. Raises ValueError for anything else."""
    if spec == "tiny":
        return f"local-dir:{TINY}", None
    if spec.startswith(("hf-hub:", "local-dir:")):
        return spec, None
    if (Path(spec) / "open_clip_config.json").is_file():
        return f"local-dir:{spec}", None
    name, _, weights = spec.partition(":")
    if not weights:
        raise ValueError(f"no CLIP model {spec!r}; give {SPEC_HELP}")
    return name, weights


def fingerprint(spec: str) -> str:
    """What the scores depend on: the model's name, and for local weights the digest of their bytes."""
    name, weights = parse_spec(spec)
    files = [Path(weights)] if weights else []
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:"))
        files = sorted(p for p in folder.iterdir() if p.name.startswith(("open_clip_", "tokenizer")))
    if not all(file.is_file() for file in files):
        return spec
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"{'tiny' if spec == 'tiny' else Path(name).name}@{digest.hexdigest()[:16]}"


def load(spec: str, *, device: str = "cpu", precision: str | None = None, batch: int | None = None) -> Clip:
    """Load a model (see SPEC_HELP) for inference on `device` ("cpu", "cuda", "cuda:1").

    precision: one of PRECISIONS; by default fp32 on the CPU and fp16 on a GPU, whose finer mantissa keeps scores
    closer to fp32 than bf16's. Raises ValueError when the model or its weights cannot be found.
    """
    import open_clip

    name, weights = parse_spec(spec)
    precision = precision or ("fp32" if device == "cpu" else "fp16")
    if not name.startswith(("hf-hub:", "local-dir:")) and name not in open_clip.list_models():
        raise ValueError(f"open_clip has no model {name!r}; open_clip.list_models() names them")
    try:
        model, _, transform = open_clip.create_model_and_transforms(
            name, pretrained=weights, precision=precision, device=device
        )
        tokenize = open_clip.get_tokenizer(name)
    except (RuntimeError, FileNotFoundError) as error:
        raise ValueError(f"cannot load the CLIP model {spec!r}: {error}") from error
    return wrap(spec, model, transform, tokenize, device=device, precision=precision, batch=batch)


def wrap(name: str, model, transform, tokenize, *, device: str, precision: str, batch: int | None = None) -> Clip:
    """Make a Clip of an open_clip model and its inference transform: [resizing ..., to tensor, normalise]."""
    import open_clip
    import torch

    *resize, _to_tensor, normalize = transform.transforms
    mean, std = (255 * torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (normalize.mean, normalize.std))
    return Clip(
        name=name, model=model.eval(), resize=_chain(resize), tokenize=tokenize, mean=mean, std=std,
        dtype=open_clip.get_input_dtype(precision), device=device, batch=batch or (32 if device == "cpu" else 256),
    )  # fmt: skip


def prepare(clip: Clip, data: bytes) -> np.ndarray:
    """Decode and resize one encoded image: uint8 [3, height, width] of the model's size. Raises BadImage."""
    return np.ascontiguousarray(np.asarray(clip.resize(decode_image(data))).transpose(2, 0, 1))


def score(clip: Clip, pixels: np.ndarray, texts: list[str]) -> np.ndarray:
    """Cosines, float32 [n], of prepared images, uint8 [n, 3, height, width], with their texts."""
    return _launch(clip, list(pixels), clip.tokenize(list(texts))).cpu().numpy() if texts else np.zeros(0, np.float32)


def score_stream(clip: Clip, pairs: Iterable[tuple[bytes, str]], decoders: int = 2) -> Iterator[float | BadImage]:
    """Yield the score of every (image bytes, text), or the BadImage that it met, in order.

    `decoders` threads decode ahead of the model (Pillow releases the interpreter while it decodes and resizes), at
    most three windows of 4 batches, so memory does not grow with the input. On a GPU the next window is under way
    before the scores of the last one are waited for.
    """
    launched = None
    with ThreadPoolExecutor(max(1, decoders)) as pool:
        for images, tokens in _decoded_windows(clip, iter(pairs), pool):
            good = [i for i, image in enumerate(images) if not isinstance(image, BadImage)]
            scores = _launch(clip, [images[i] for i in good], tokens[good]) if good else None
            if launched:
                yield from _results(*launched)
            launched = ([image if isinstance(image, BadImage) else None for image in images], good, scores)
    if launched:
        yield from _results(*launched)


def _decoded_windows(clip: Clip, pairs: Iterator, pool: ThreadPoolExecutor) -> Iterator[tuple[list, Any]]:
    """Yield (prepared images or BadImages, tokens) of 4 batches at a time, decoding two windows ahead."""
    ahead = deque()
    while True:
        while len(ahead) < 3 and (chunk := list(islice(pairs, 4 * clip.batch))):
            tokens = pool.submit(clip.tokenize, [text for _, text in chunk])
            ahead.append(([pool.submit(_try_prepare, clip, data) for data, _ in chunk], tokens))
        if not ahead:
            return
        images, tokens = ahead.popleft()
        yield [image.result() for image in images], tokens.result()


def _try_prepare(clip: Clip, data: bytes) -> np.ndarray | BadImage:
    try:
        return prepare(clip, data)
    except BadImage as error:
        return error


def _results(errors: list[BadImage | None], good: list[int], scores) -> list[float | BadImage]:
    results: list = list(errors)
    for i, value in zip(good, scores.tolist() if good else [], strict=True):
        results[i] = value
    return results


def _launch(clip: Clip, images: list[np.ndarray], tokens):
    """Cosines on the device, which may still be computing them."""
    import torch

    with torch.inference_mode():
        return (_image_features(clip, images) * _text_features(clip, tokens)).sum(dim=1)


def _image_features(clip: Clip, images: list[np.ndarray]):
    """Unit vectors, float32 [n, dim]. Pixels travel to the device as bytes and are normalised there."""
    import torch

    features = []
    for start in range(0, len(images), clip.batch):
        part = images[start : start + clip.batch]
        pixels = torch.from_numpy(np.stack(part + part[:1] * (clip.batch - len(part))))
        if clip.device != "cpu":
            pixels = pixels.pin_memory().to(clip.device, non_blocking=True)
        normal = (pixels.float() - clip.mean) / clip.std
        features.append(_unit(clip.model.encode_image(normal.to(clip.dtype)))[: len(part)])
    return torch.cat(features)


def _text_features(clip: Clip, tokens):
    """Unit vectors, float32 [n, dim], computed per width so that short captions do not pay for 77 tokens."""
    import torch

    widths, size = _widths(clip, tokens), max(1, clip.batch // 4)
    features = []
    for width in widths.unique().tolist():  # ascending, as the sort below
        for part in tokens[widths == width][:, :width].split(size):
            full = torch.cat([part, part[:1].expand(size - len(part), -1)]).to(clip.device, non_blocking=True)
            features.append(_unit(encode_text(clip.model, full))[: len(part)])
    place = torch.argsort(torch.argsort(widths, stable=True))
    return torch.cat(features)[place.to(clip.device)]


def _widths(clip: Clip, tokens):
    """The columns each row of `tokens` needs, rounded up to buckets of 16; all of them where cutting is not exact."""
    import torch

    tower = getattr(clip.model, "text", clip.model)
    if hasattr(tower, "config") and hasattr(tower.config, "pad_token_id"):  # a Hugging Face tower masks its padding
        used = (tokens != tower.config.pad_token_id).sum(dim=1)
    elif _is_causal(tower):
        used = tokens.argmax(dim=1) + 1
    else:
        return torch.full((len(tokens),), tokens.shape[1])
    return (torch.ceil(used / _BUCKET).long() * _BUCKET).clamp(_BUCKET, tokens.shape[1])


def encode_text(model, tokens):
    """Text features [n, dim] of `tokens` [n, width], where width may be less than the model's context.

    With a causal mask and pooling at the end-of-text token, the columns after that token change nothing; open_clip's
    own forward insists on the full width.
    """
    from open_clip.transformer import text_global_pool

    tower = getattr(model, "text", model)
    if not _is_causal(tower):
        return model.encode_text(tokens)
    width, dtype = tokens.shape[1], tower.transformer.get_cast_dtype()
    x = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:width].to(dtype)
    x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:width, :width]))
    x = text_global_pool(x, tokens, "argmax")
    if tower.text_projection is None:
        return x
    return tower.text_projection(x) if callable(tower.text_projection) else x @ tower.text_projection


def _is_causal(tower) -> bool:
    """Whether it is one of open_clip's own text towers, causal and pooled at the highest token id."""
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    plain = getattr(tower, "cls_emb", None) is None and not getattr(tower, "use_pad_mask", False)
    return pool == "argmax" and plain and getattr(tower, "attn_mask", None) is not None


def _unit(features):
    from torch.nn.functional import normalize

    return normalize(features.float(), dim=-1)


@dataclass(frozen=True, slots=True)
class _chain:
    """Apply image transforms in turn. A class, because a closure cannot be sent to another process."""

    steps: list

    def __call__(self, image: Image.Image) -> Image.Image:
        for step in self.steps:
            image = step(image)
        return image
