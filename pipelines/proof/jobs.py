"""The jobs that the campaign strikes, and the small inputs they read: the demo's crawl, and what is made of it here."""

import json
import math
import os
import random
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.proof.bad_server import ANSWERS, BadServer
from renderers.browsers import find_browser

ROOT = Path(__file__).resolve().parents[2]
_LOST = 0.5  # of the manifests, before a strike, so that it finds work
_FILES = 3  # of a made input
_TORCH = 2048  # PyTorch alone takes 540 MB
# What the server answers in between: each ends as the same error row every time. `drip` costs its whole timeout.
_LIES = [*sorted(ANSWERS.keys() - {"ok", "to"}), "short", "long", "reset", "close", "garbage", "endless", "headers"]


@dataclass(frozen=True)
class Job:
    """A command below `pipelines/`, without --output and --workers; `needs` names the jobs whose output it reads."""

    name: str
    command: str
    needs: tuple[str, ...] = ()
    server: BadServer | None = None
    most_megabytes: int = 1024  # resident, of its largest process

    def argv(self, output: Path, workers: int = 0) -> list[str]:
        return [sys.executable, *shlex.split(f"pipelines/{self.command}"), "--output", str(output),
                "--workers", str(workers)]  # fmt: skip

    def kinds(self) -> Iterator[str]:
        """The kinds of strike that mean something for this job, on this machine."""
        yield from ("driver", "workers", "freeze")
        yield from ("disk",) if may_mount() else ()
        yield from ("server",) if self.server else ()

    def lose(self, output: Path, rng: random.Random) -> None:
        """Remove some manifests, as a disk may, so that the next run finds work to do."""
        manifests = sorted(path for path in output.rglob("*.json") if path.name != "job.json")
        for manifest in rng.sample(manifests, math.ceil(_LOST * len(manifests))):
            manifest.unlink()

    def contents(self, output: Path) -> dict[str, bytes]:
        """What must be the same after a strike, by file."""
        return contents(output)


class Training(Job):
    """`python -m trainer`: weights are compared, and the names of all else, since logs hold times."""

    def argv(self, output: Path, workers: int = 0) -> list[str]:
        return [sys.executable, *shlex.split(self.command), "--output", str(output)]

    def kinds(self) -> Iterator[str]:
        yield from (kind for kind in super().kinds() if kind != "workers")

    def lose(self, output: Path, rng: random.Random) -> None:
        """Begin anew now and then; or damage the newest of two checkpoints, so that the one before has to do."""
        checkpoints = sorted(output.glob("checkpoints/step-*"))
        if rng.random() < _LOST:
            shutil.rmtree(output, ignore_errors=True)
        elif len(checkpoints) > 1 and rng.random() < _LOST:
            shutil.rmtree(output / "export", ignore_errors=True)
            _flip_a_bit(max(checkpoints[-1].glob("*.distcp")), rng)

    def contents(self, output: Path) -> dict[str, bytes]:
        return {name: path.read_bytes() if name.startswith("export/") else b""
                for name, path in _files(output, ("tensorboard/*",))}  # fmt: skip


def contents(output: Path) -> dict[str, bytes]:
    """Every file below a job's folder, but for the report; manifests without their timing."""
    return {name: _timeless(name, path.read_bytes()) for name, path in _files(output, ("report*",))}


def _files(output: Path, passed_over: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for path in sorted(path for path in output.rglob("*") if path.is_file()):
        name = str(path.relative_to(output))
        if not any(fnmatch(name, pattern) or fnmatch(path.name, pattern) for pattern in passed_over):
            yield name, path


def _timeless(name: str, data: bytes) -> bytes:
    return json.dumps(json.loads(data) | {"seconds": 0}).encode() if name.endswith(".json") else data


def _flip_a_bit(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def may_mount() -> bool:
    """Whether this process may mount a small disk: root, where the container allows it."""
    return os.geteuid() == 0 and bool(shutil.which("unshare"))


def table(out: Path, server: BadServer) -> list[Job]:
    """Every job, after those whose output it reads."""
    raw, whole = out / "raw", out / "jobs" / "clean_laion" / "whole"
    return [
        _job(f"clean_laion.py --dataset laion-en --decode --input '{raw}/en/*'"),
        _job(f"clean_laion.py --dataset laion-en --input '{raw}/urls/*'", name="clean_laion_urls"),
        _job(f"clean_captions.py --dataset cc12m --input '{raw}/en/*.tar'"),
        _job(f"clean_text.py --input '{raw}/texts/*.txt'"),
        _job(f"clean_chat.py --dataset chat-sft --input {raw}/dialogues/chat.json --images {raw}/dialogues/images"),
        _job(f"clean_vqa.py --dataset vgqa --decode --input '{raw}/genome/qa-*' "
             f"--images {raw}/genome/images --no-guard"),
        _job(f"clean_grounding.py --dataset visual-genome --input '{raw}/genome/reg*' "
             f"--images {raw}/genome/images --no-guard"),
        _job("fetch_images.py --dataset laion-en --allow-private --timeout 6 --retries 1 --max-bytes 1000000 "
             f"--input '{raw}/urls/*'", server=server),
        _job(f"render_pdf.py --dataset common-crawl-pdf --input '{raw}/documents/*.pdf'"),
        *([_job("render_html.py --dataset common-crawl-html --page-seconds 300 "
                f"--input '{raw}/documents/*.html'")] if _browser() else ()),
        _job("make_ocr.py --language en --count 16 --images-per-shard 2 --available-faces"),
        _job("make_scenes.py --dataset scenes-vqa --count 200 --samples-per-shard 20"),
        _job(f"score_clip.py --dataset laion-en --clip tiny --input '{whole}/*.tar'", needs=("clean_laion",),
             most_megabytes=_TORCH),
        _job(f"dedup.py --each-other --input '{whole}/*.tar'", needs=("clean_laion",)),
        _job(f"retune.py {whole} --set text_length.min_characters=12", needs=("clean_laion",)),
        _job(f"build_stage.py --stage 2 --data {out}/cleaned --queries 16", needs=tuple(_CLEANED.values())),
        Training("trainer", f"-m trainer --stage 2 --data {out}/jobs/build_stage/whole --size tiny --steps 8 --batch 4 "
                 "--warmup 1 --save-every 2 --resume auto", needs=("build_stage",), most_megabytes=_TORCH),
    ]  # fmt: skip


def _job(command: str, name: str = "", **more) -> Job:
    return Job(name or command.partition(".py")[0], command, **more)


def _browser() -> bool:
    try:
        return bool(find_browser())
    except FileNotFoundError:
        return False


# What build_stage.py finds below `cleaned`: dataset -> the job that makes it.
_CLEANED = {"laion-en": "clean_laion", "vgqa": "clean_vqa", "visual-genome": "clean_grounding",
            "common-crawl-pdf": "render_pdf"}  # fmt: skip


def prepare(out: Path) -> BadServer:
    """Make the crawl that the jobs read, once; return the server that its URLs name, not started yet."""
    raw, unfinished = out / "raw", out / "raw.unfinished"
    if not raw.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        command = [sys.executable, "pipelines/make_demo_crawl.py", "--output", str(unfinished), "--pairs", "100"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        _write_texts(unfinished / "texts")
        _write_genome(unfinished / "genome", unfinished / "dialogues" / "images")
        _link_cleaned(out)
        with BadServer() as server:
            _write_urls(unfinished / "urls", server)
        (unfinished / "port").write_text(str(server.port))
        unfinished.rename(raw)
    return BadServer(port=int((raw / "port").read_text()))


def _write_texts(folder: Path) -> None:
    folder.mkdir()
    rng = random.Random(0)
    for number in range(2 * _FILES):
        lines = [" ".join(f"word{rng.randrange(3000)}" for _ in range(rng.randrange(5, 300))) for _ in range(200)]
        (folder / f"{number}.txt").write_text("\n".join(lines))


def _write_genome(folder: Path, photos: Path) -> None:
    """Questions and regions in Visual Genome's form, about the pictures of the dialogues."""
    (folder / "images").mkdir(parents=True)
    for number, photo in enumerate(sorted(photos.iterdir())):
        shutil.copy(photo, folder / "images" / f"{number}.jpg")
    for part in range(_FILES):
        ids = range(part, number, _FILES)
        qas = [[{"qa_id": 9 * i + n, "image_id": i, "question": f"What is {n}?", "answer": "Green."} for n in range(3)]
               for i in ids]  # fmt: skip
        regions = [[{"region_id": 9 * i + n, "image_id": i, "phrase": f"a thing, {n}", "x": 9 * n, "y": 5, "width": 60,
                     "height": 40} for n in range(4)] for i in ids]  # fmt: skip
        for name, key, rows in ("qa", "qas", qas), ("regions", "regions", regions):
            found = [{"id": i, key: own} for i, own in zip(ids, rows, strict=True)]
            (folder / f"{name}-{part}.json").write_text(json.dumps(found))


def _link_cleaned(out: Path) -> None:
    (out / "cleaned").mkdir(exist_ok=True)
    for dataset, job in _CLEANED.items():
        (out / "cleaned" / dataset).unlink(missing_ok=True)
        (out / "cleaned" / dataset).symlink_to(out / "jobs" / job / "whole")


def _write_urls(folder: Path, server: BadServer) -> None:
    """URLs of images, with a lie after every third, and one answer that never ends."""
    folder.mkdir()
    for part in range(_FILES):
        paths = [f"/{_LIES[i // 4 % len(_LIES)]}/{i}" if i % 4 == 3 else f"/ok/{99 * part + i}" for i in range(99)]
        paths += ["/drip/0"] if part == 0 else []
        urls = [server.url(path) for path in paths]
        texts = [f"a photo of a small green thing, number {i}" for i in range(len(urls))]
        columns = {"URL": urls, "TEXT": texts, "WIDTH": [300] * len(urls), "HEIGHT": [200] * len(urls)}
        pq.write_table(pa.table({**columns, "similarity": [0.4] * len(urls)}), folder / f"{part}.parquet")
