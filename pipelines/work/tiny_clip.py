"""The training of the tiny CLIP that ships in cleaners/tiny_clip; pipelines/train_tiny_clip.py is its command."""

import io
import json
import math
import random
import shutil
import time
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from cleaners.clip import encode_text
from pipelines.proof.scenes.scene import scene

MODEL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16},
    "text_cfg": {"context_length": 48, "vocab_size": 1024, "width": 128, "heads": 4, "layers": 2,
                 "hf_tokenizer_name": "tokenizer.json"},
}  # fmt: skip
PHOTO_SHARE = 0.2  # of the pairs, when there are photos
# Squashing keeps the whole picture; a centre crop would cut objects away that the caption names.
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic", "resize_mode": "squash"}


@dataclass(frozen=True, slots=True)
class Pair:
    """An image with its caption. Pairs of one `subject` match each other's captions too."""

    image: Image.Image
    caption: str
    subject: str


def pair(seed: str, photos: list[dict]) -> Pair:
    """One training or held-out pair, English or Chinese: a scene at a random size, or a crop of one of `photos`."""
    rng = random.Random(f"pair/{seed}")
    if photos and rng.random() < PHOTO_SHARE:
        entry = rng.choice(photos)
        language = "en" if rng.random() < 0.6 else "zh"
        return Pair(_through_jpeg(_crop(_load(entry["package"], entry["file"]), rng), rng), rng.choice(entry[language]),
                    entry["file"])  # fmt: skip
    drawn = scene(seed, rng.randrange(96, 257), max_tilt=rng.choice([0, 0, 15]))
    image = _through_jpeg(drawn.image, rng)
    caption = drawn.caption_en if rng.random() < 0.6 else drawn.caption_zh
    return Pair(image, caption, caption)


@lru_cache
def _load(package: str, name: str) -> Image.Image:
    """A photo that ships inside an installed package, at a size that is quick to crop."""
    image = Image.open(Path(find_spec(package).origin).parent / name).convert("RGB")
    image.thumbnail((400, 400))
    return image


def _crop(photo: Image.Image, rng: random.Random) -> Image.Image:
    width, height = (round(side * rng.uniform(0.6, 1.0)) for side in photo.size)
    x, y = rng.randint(0, photo.width - width), rng.randint(0, photo.height - height)
    return photo.crop((x, y, x + width, y + height))


def _through_jpeg(image: Image.Image, rng: random.Random) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=rng.randrange(60, 96))
    return Image.open(buffer)


def train_tokenizer(captions: list[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE. <eos> has the highest id, because CLIP's text tower pools at the highest id of a row."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1, special_tokens=["<pad>", "<sos>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(captions, trainer)
    # Few captions make few merges; the ids in between stay unused, so that <eos> is the last row of the table.
    tokenizer.add_tokens([f"<unused{i}>" for i in range(vocab_size - 1 - tokenizer.get_vocab_size())])
    tokenizer.add_special_tokens(["<eos>"])
    ids = [(name, tokenizer.token_to_id(name)) for name in ("<sos>", "<eos>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<sos> $A <eos>", special_tokens=ids)
    assert tokenizer.token_to_id("<eos>") == vocab_size - 1
    return tokenizer


class Pairs(torch.utils.data.Dataset):
    """(pixels [3, S, S], caption, subject) of the pairs `split`/0 ... `split`/count-1."""

    def __init__(self, split: str, count: int, transform, photos: list[dict]):
        self.split, self.count, self.transform, self.photos = split, count, transform, photos

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        found = pair(f"{self.split}/{index}", self.photos)
        return self.transform(found.image), found.caption, found.subject


def contrastive_loss(images, texts, subjects, scale):
    """CLIP's symmetric cross-entropy. Pairs of one subject within the batch are not counted as mismatches."""
    logits = scale * images @ texts.T
    same = torch.tensor([[a == b for b in subjects] for a in subjects])
    same.fill_diagonal_(False)
    logits = logits.masked_fill(same, float("-inf"))
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def auc(matched: np.ndarray, shuffled: np.ndarray) -> float:
    """Probability that a matched pair scores above a shuffled one, ties counted half (Mann-Whitney U)."""
    ordered = np.sort(shuffled)
    below = np.searchsorted(ordered, matched, "left") + np.searchsorted(ordered, matched, "right")
    return float(below.mean() / 2 / len(shuffled))


@torch.no_grad()
def evaluate(model, tokenize, transform, count: int, photos: list[dict]) -> dict:
    """AUC of matched against shuffled held-out pairs, and how often the right caption of 100 scores highest."""
    model.eval()
    loader = torch.utils.data.DataLoader(Pairs("heldout", count, transform, photos), 100)
    images, texts, subjects, hits = [], [], [], 0
    for pixels, names, about in loader:
        images.append(model.encode_image(pixels, normalize=True))
        texts.append(encode_texts(model, tokenize, names))
        subjects += about
        hits += int((images[-1] @ texts[-1].T).argmax(dim=1).eq(torch.arange(len(names))).sum())
    images, texts = torch.cat(images), torch.cat(texts)
    matched = (images * texts).sum(dim=1).numpy()
    shuffled = (images * texts[others(subjects)]).sum(dim=1).numpy()
    floor = float(np.quantile(matched, 0.01))
    return {
        "pairs": count,
        "auc": round(auc(matched, shuffled), 4),
        "recall_at_1_of_100": round(hits / count, 4),
        "matched_mean": round(float(matched.mean()), 4),
        "shuffled_mean": round(float(shuffled.mean()), 4),
        "first_percentile_of_matched": round(floor, 4),
        "shuffled_above_it": round(float((shuffled >= floor).mean()), 4),
    }


def others(subjects: list[str]) -> list[int]:
    """For each pair the index of the next one with another subject."""
    count = len(subjects)
    after = [[j % count for j in range(i + 1, i + count)] for i in range(count)]
    return [next(j for j in later if subjects[j] != subject) for later, subject in zip(after, subjects, strict=True)]


def encode_texts(model, tokenize, captions):
    tokens = tokenize(list(captions))
    return F.normalize(encode_text(model, tokens[:, : int(tokens.argmax(dim=1).max()) + 1]), dim=-1)


def build(folder: Path, start: Path | None):
    """Make the model: that of the folder `start`, copied to `folder`, or an untrained one with its own tokenizer."""
    import open_clip

    if start:
        shutil.copytree(start, folder, dirs_exist_ok=True)
    else:
        _write_untrained(folder)
    name = f"local-dir:{folder}"
    model, _, transform = open_clip.create_model_and_transforms(name, load_weights=start is not None)
    return model, transform, open_clip.get_tokenizer(name)


def _write_untrained(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    captions = [pair(f"tokenizer/{i}", []).caption for i in range(4000)]
    train_tokenizer(captions, MODEL["text_cfg"]["vocab_size"]).save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "bos_token": "<sos>", "eos_token": "<eos>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 48, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n")


def train_step(model, optimizer, pixels, texts, subjects) -> float:
    images = model.encode_image(pixels, normalize=True)
    loss = contrastive_loss(images, texts, subjects, model.logit_scale.exp())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0, math.log(50))
    return loss.item()


def train(args) -> dict:
    """Train and save; returns the held-out figures, which are also written beside the weights."""
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    photos = yaml.safe_load(args.photos.read_text(encoding="utf-8")) if args.photos else []
    model, transform, tokenize = build(args.output, args.init)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.05)
    pairs = Pairs("photos" if args.photos else "train", args.steps * args.batch, transform, photos)
    loader = torch.utils.data.DataLoader(pairs, args.batch, num_workers=1, prefetch_factor=4)
    model.train()
    started, cpu = time.time(), time.process_time()
    for step, (pixels, captions, subjects) in enumerate(loader):
        warm, cosine = min(1, (step + 1) / 50), 0.5 * (1 + math.cos(math.pi * step / args.steps))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * warm * cosine
        loss = train_step(model, optimizer, pixels, encode_texts(model, tokenize, captions), subjects)
        if step % 25 == 0 or step + 1 == args.steps:
            print(f"step {step} loss {loss:.3f} {time.time() - started:.0f} s", flush=True)
    save_half(model, args.output / "open_clip_model.safetensors")
    figures = evaluate(model, tokenize, transform, 2000, photos=[])
    figures["with_photos"] = evaluate(model, tokenize, transform, 2000, photos) if photos else None
    figures |= {"steps": args.steps, "batch": args.batch, "cpu_seconds": round(time.process_time() - cpu)}
    (args.output / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def save_half(model, path: Path):
    """Write fp16 weights, and round the model's own to them, so that it is evaluated as it ships."""
    from safetensors.torch import save_file

    half = {name: v.half() if v.is_floating_point() else v for name, v in model.state_dict().items()}
    save_file({name: v.contiguous() for name, v in half.items()}, path)
    model.load_state_dict(half)
