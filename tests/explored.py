"""Cleaned folders of random rows, of three datasets and two jobs, for tests of what counts their ledgers."""

import json
import random
from pathlib import Path

import pytest

from pipelines import clean_laion, clean_text
from tests.published import run_job
from tests.test_clean_laion import jpeg, shard

SENTENCE = "a red barn stands near the old river under quiet grey clouds in late autumn"
WORDS = SENTENCE.split()
HOSTILE = "<img src=x onerror=document.title='owned'> <script>document.title='owned'</script>"
LOOSE = ("--rule", "image_size=150", "--rule", "clip_score=0.22", "--rule", "text_length.max_words=40")


def caption(chance: random.Random) -> str:
    said = " ".join(chance.choices(WORDS, k=chance.randint(1, 14)))
    return said + chance.choice(["", "", "", " 😀", " &amp; more", " красный", " " + HOSTILE])


def pairs(folder: Path, dataset: str, seed: int, rows: int = 120, *more: str) -> Path:
    """Write a crawl of two shards and clean it; return the output folder."""
    chance = random.Random(seed)
    images = [jpeg(width, height) for width, height in ((320, 240), (180, 160), (900, 220), (140, 140), (640, 480))]
    for name in "ab":
        made = [
            (
                chance.choice([*images, images[0][:200]]),
                caption(chance),
                {"similarity": chance.gauss(0.3, 0.1)},
            )
            for _ in range(rows // 2 - 1)
        ]
        made.append((images[0], "", {"similarity": 0.3}))  # dropped by a rule without a threshold
        folder.mkdir(exist_ok=True, parents=True)
        shard(folder / f"{name}.tar", made)
    out = folder / dataset
    run_job(clean_laion, "--dataset", dataset, "--input", folder / "*.tar", "--output", out, *LOOSE, *more)
    return out


def documents(folder: Path, seed: int, rows: int = 60) -> Path:
    """Write documents and clean them; return the output folder."""
    chance = random.Random(seed)
    folder.mkdir(exist_ok=True, parents=True)
    made = [json.dumps({"text": " ".join(chance.choices(WORDS, k=chance.randint(3, 300)))}) for _ in range(rows)]
    (folder / "rows.jsonl").write_text("\n".join([*made, "no json"]))
    out = folder / "in-house-text"
    run_job(clean_text, "--input", folder / "rows.jsonl", "--output", out, "--duplicates", "keep")
    return out


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory) -> dict[str, Path]:
    """Return dataset -> output folder."""
    root = tmp_path_factory.mktemp("explored")
    return {
        "laion-en": pairs(root / "en", "laion-en", 1),
        "laion-zh": pairs(root / "zh", "laion-zh", 2),
        "in-house-text": documents(root / "text", 3),
    }
