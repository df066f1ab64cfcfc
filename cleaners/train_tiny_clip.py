"""Train the tiny CLIP that ships in cleaners/tiny_clip, on scenes drawn as it goes.

It exists so that tests and the demo score image-text pairs with a real model that costs nothing to download. It
knows shapes, colours, counts, positions and printed words in English and Chinese, and nothing of photographs.
The output is an ordinary open_clip folder (`local-dir:`): config, tokenizer and fp16 safetensors.

    python -m cleaners.train_tiny_clip --output cleaners/tiny_clip
"""

import argparse
import io
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from cleaners.clip import encode_text
from corpus.scenes import scene

MODEL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16},
    "text_cfg": {"context_length": 48, "vocab_size": 1024, "width": 128, "heads": 4, "layers": 2,
                 "hf_tokenizer_name": "tokenizer.json"},
}  # fmt: skip
# Squashing keeps the whole picture; a centre crop would cut objects away that the caption names.
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic", "resize_mode": "squash"}


def pair(seed: str) -> tuple[Image.Image, str]:
    """One training or held-out pair: a scene at a random size, through JPEG, with its English or Chinese caption."""
    rng = random.Random(f"pair/{seed}")
    drawn = scene(seed, rng.randrange(96, 257), max_tilt=rng.choice([0, 0, 15]))
    buffer = io.BytesIO()
    drawn.image.save(buffer, "JPEG", quality=rng.randrange(60, 96))
    return Image.open(buffer), drawn.caption_en if rng.random() < 0.6 else drawn.caption_zh


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
    """(uint8 pixels [3, S, S], caption) of the pairs `split`/0 ... `split`/count-1."""

    def __init__(self, split: str, count: int, transform):
        self.split, self.count, self.transform = split, count, transform

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image, caption = pair(f"{self.split}/{index}")
        return self.transform(image), caption


def contrastive_loss(images, texts, captions, scale):
    """CLIP's symmetric cross-entropy. Equal captions within the batch are not counted as mismatches."""
    logits = scale * images @ texts.T
    same = torch.tensor([[a == b for b in captions] for a in captions])
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
def evaluate(model, tokenize, transform, count: int) -> dict:
    """AUC of matched against shuffled held-out pairs, and how often the right caption of 100 scores highest."""
    model.eval()
    loader = torch.utils.data.DataLoader(Pairs("heldout", count, transform), 100)
    images, texts, captions, hits = [], [], [], 0
    for pixels, names in loader:
        images.append(model.encode_image(pixels, normalize=True))
        texts.append(encode_texts(model, tokenize, names))
        captions += names
        hits += int((images[-1] @ texts[-1].T).argmax(dim=1).eq(torch.arange(len(names))).sum())
    images, texts = torch.cat(images), torch.cat(texts)
    matched = (images * texts).sum(dim=1).numpy()
    shuffled = (images * texts[other_captions(captions)]).sum(dim=1).numpy()
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


def other_captions(captions: list[str]) -> list[int]:
    """For each caption the index of the next one that reads differently."""
    count = len(captions)
    after = [[j % count for j in range(i + 1, i + count)] for i in range(count)]
    return [next(j for j in later if captions[j] != caption) for later, caption in zip(after, captions, strict=True)]


def encode_texts(model, tokenize, captions):
    tokens = tokenize(list(captions))
    return F.normalize(encode_text(model, tokens[:, : int(tokens.argmax(dim=1).max()) + 1]), dim=-1)


def build(folder: Path):
    """Write config and tokenizer into `folder` and make the untrained model from them."""
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    captions = [pair(f"tokenizer/{i}")[1] for i in range(4000)]
    train_tokenizer(captions, MODEL["text_cfg"]["vocab_size"]).save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "bos_token": "<sos>", "eos_token": "<eos>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 48, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n")
    name = f"local-dir:{folder}"
    model, _, transform = open_clip.create_model_and_transforms(name, load_weights=False)
    return model, transform, open_clip.get_tokenizer(name)


def train_step(model, optimizer, pixels, texts, captions) -> float:
    images = model.encode_image(pixels, normalize=True)
    loss = contrastive_loss(images, texts, captions, model.logit_scale.exp())
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
    model, transform, tokenize = build(args.output)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.05)
    loader = torch.utils.data.DataLoader(
        Pairs("train", args.steps * args.batch, transform), args.batch, num_workers=1, prefetch_factor=4
    )
    model.train()
    started, cpu = time.time(), time.process_time()
    for step, (pixels, captions) in enumerate(loader):
        warm, cosine = min(1, (step + 1) / 50), 0.5 * (1 + math.cos(math.pi * step / args.steps))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * warm * cosine
        loss = train_step(model, optimizer, pixels, encode_texts(model, tokenize, captions), captions)
        if step % 25 == 0 or step + 1 == args.steps:
            print(f"step {step} loss {loss:.3f} {time.time() - started:.0f} s", flush=True)
    save_half(model, args.output / "open_clip_model.safetensors")
    figures = evaluate(model, tokenize, transform, 2000)
    figures |= {"steps": args.steps, "batch": args.batch, "cpu_seconds": round(time.process_time() - cpu)}
    (args.output / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def save_half(model, path: Path):
    """Write fp16 weights, and round the model's own to them, so that it is evaluated as it ships."""
    from safetensors.torch import save_file

    half = {name: v.half() if v.is_floating_point() else v for name, v in model.state_dict().items()}
    save_file({name: v.contiguous() for name, v in half.items()}, path)
    model.load_state_dict(half)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    print(json.dumps(train(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
