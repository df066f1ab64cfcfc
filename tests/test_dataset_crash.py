"""A job of two passes, killed in either and started again, ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.proof.jobs import contents
from tests.published import jpeg, outcomes, samples
from tests.test_dataset_jobs import caption_shard

ROOT = Path(__file__).resolve().parent.parent
SHARDS, PAIRS = 8, 30


def command(folder, output) -> list[str]:
    flags = ["--dataset", "cc12m", "--input", f"{folder}/raw/*.tar", "--output", str(output), "--workers", "0"]
    return [sys.executable, "pipelines/clean_captions.py", *flags]


def finish(folder, output) -> None:
    done = subprocess.run(command(folder, output), cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captions")
    (folder / "raw").mkdir()
    images = [jpeg(seed) for seed in range(100)]
    rng = random.Random(5)
    for shard in range(SHARDS):
        pairs = [
            (f"http://x/{shard}/{i}.jpg", f"text {'very ' * rng.randint(0, 9)}long", images[rng.randrange(100)])
            for i in range(PAIRS)
        ]
        caption_shard(folder / "raw" / f"{shard}.tar", pairs, start=shard * PAIRS)
    began = time.monotonic()
    finish(folder, folder / "whole")
    return folder, contents(folder / "whole"), time.monotonic() - began


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_in_either_pass(captions, tmp_path):
    folder, whole, seconds = captions
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    rng, output, passes = random.Random(seed), tmp_path / "out", set()
    for _ in range(8):
        driver = subprocess.Popen(
            command(folder, output),
            cwd=ROOT,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(rng.uniform(0.4, 1.0) * seconds)
        os.killpg(driver.pid, signal.SIGKILL)
        if driver.wait() == -signal.SIGKILL:
            passes.add("second" if (output / "job.json").exists() else "first" if output.exists() else "neither")
        for place in (output, output / ".texts"):  # manifests lost, so that the next kill finds work in both passes
            for manifest in sorted(place.glob("*-*.json"))[:3] if rng.random() < 0.4 else []:
                manifest.unlink()
    assert passes, "the kills came too late to prove anything"
    finish(folder, output)
    assert contents(output) == whole


def test_every_image_keeps_one_text_over_all_shards(captions):
    folder, _, _ = captions
    found, counts = samples(folder / "whole"), outcomes(folder / "whole")
    assert len({s.images[0].data for s in found.values()}) == len(found) == counts["kept"]
    assert counts["kept"] + counts["longer_text_exists"] == SHARDS * PAIRS
