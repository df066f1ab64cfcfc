"""How long explore.py takes over a generated ledger: first screen, a moved slider, rows; and its peak memory.

Writes ledgers of N random rows, judged by clean_laion.py's rules, without samples; starts the server and asks as the
page does.

    python benchmarks/explore.py --rows 10000000 --splits 100 --folder /tmp/ledgers
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402
import psutil  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.compute as pc  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from corpus import ledger  # noqa: E402
from corpus.folder import VERSION, Manifest, OutputFolder  # noqa: E402
from corpus.verdicts import DROPPED, KEPT  # noqa: E402
from pipelines.work.datasets import TABLES, rule_settings, rules_of_folder, whole_catalog  # noqa: E402
from pipelines.work.judged import judge  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, metavar="N")
    parser.add_argument("--splits", type=int, default=100, metavar="N")
    parser.add_argument("--folder", required=True, metavar="DIR", help="where the ledgers are, or will be written")
    args = parser.parse_args()
    if not Path(args.folder, "job.json").exists():
        write(args.folder, args.rows, args.splits)
    measure(args.folder)


def write(where: str, rows: int, splits: int) -> None:
    """Write a cleaned folder of random ledgers, without the samples that were kept."""
    dataset, table = whole_catalog(None)["laion-en"], TABLES["clean_laion"]
    settings = {"job": "clean_laion", "version": VERSION, "dataset": "laion-en", **rule_settings(table, dataset.rules)}
    folder = OutputFolder(where)
    folder.prepare(json.loads(json.dumps(settings)))
    for number in range(splits):
        made = _judged(_scores(number, rows // splits), settings)
        file = Path(where, f"{number:05d}.parquet")
        pq.write_table(made, file, compression="zstd", row_group_size=ledger.ROWS_PER_GROUP)
        raw = file.read_bytes()
        files, sizes = {"parquet": hashlib.sha256(raw).hexdigest()}, {"parquet": len(raw)}
        about = (files, "", {}, {"url": ""}, VERSION, 1.0, made.num_rows, sizes)
        folder.write(f"{number:05d}.json", Manifest(f"{number:05d}", ledger.count(made), *about).to_json())


def _scores(number: int, size: int) -> pa.Table:
    random = np.random.default_rng(number)
    words = random.poisson(9, size).astype(float) + 1
    return pa.table(
        {
            "key": pc.binary_join_element_wise(
                f"laion-en/{number:05d}/", pa.array(np.arange(size)).cast(pa.string()), ""
            ),
            "row": np.arange(size), "source_key": pa.array(np.arange(size)).cast(pa.string()),
            "outcome": np.full(size, KEPT), "rule": pa.nulls(size, pa.string()),
            "text_before": pc.binary_join_element_wise(
                "a caption of a picture, number", pa.array(random.integers(0, 1 << 40, size)).cast(pa.string()), " "
            ),
            "special_tags": pa.nulls(size, pa.float64()), "aspect_ratio": 1 + random.exponential(0.6, size),
            "short_side": random.integers(60, 1600, size).astype(float),
            "foreign_characters": random.poisson(0.05, size).astype(float),
            "emoji_count": random.poisson(0.03, size).astype(float),
            "characters": np.round(words * 5.4), "words": words,
            "clip_score": random.normal(0.3, 0.05, size),
        }
    )  # fmt: skip


def _judged(table: pa.Table, settings: dict) -> pa.Table:
    """Let the rules drop rows, and forget the scores that no rule came to measure."""
    empty = {
        name: pa.nulls(table.num_rows, kind) for name, kind in (("value", pa.float64()), ("threshold", pa.float64()))
    }
    for name, column in empty.items():
        table = table.append_column(name, column)
    rules = rules_of_folder(settings)
    found = judge(table, rules, settings["rules"])
    falls = pa.array(found.fails)
    table = table.set_column(3, "outcome", pc.if_else(falls, DROPPED, KEPT))
    for name, values in (("rule", found.rule), ("value", found.value), ("threshold", found.threshold)):
        kind = pa.string() if name == "rule" else pa.float64()
        column = pc.if_else(falls, pa.array(values, kind), pa.scalar(None, kind))
        table = table.set_column(table.column_names.index(name), name, column)
    # Of the rules that are off no score is made.
    order = [name for name in rules if set(rules[name].measures) & set(table.column_names)]
    ended = np.array([order.index(rule) if rule else len(order) for rule in found.rule.tolist()])
    for place, rule in enumerate(order):
        for score in rules[rule].measures:
            column = pc.if_else(pa.array(ended >= place), table[score], pa.scalar(None, pa.float64()))
            table = table.set_column(table.column_names.index(score), score, column)
    for field in ledger.BASE:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.set_column(
        table.column_names.index("text_before"), "text_before",
        pc.if_else(falls, table["text_before"], pa.scalar(None, pa.string())),
    )  # fmt: skip


def measure(where: str) -> None:
    """Start the server, ask what the page asks, print seconds and memory."""
    command = [sys.executable, str(ROOT / "pipelines" / "explore.py"), where]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        server.stdout.readline()
        url = urllib.parse.urlsplit(server.stdout.readline().strip())
        peak = _ask(f"http://{url.netloc}/api/", url.query, psutil.Process(server.pid))
        print(f"{'peak memory, MB':<44}{peak / 1e6:>9.0f}")
    finally:
        server.terminate()
        server.wait()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _ask(root: str, token: str, process: psutil.Process) -> float:
    began, peak = time.perf_counter(), 0.0

    def timed(name: str, query: str, quiet: bool = False) -> dict:
        start, spent = time.perf_counter(), _cpu(process)
        with urllib.request.urlopen(f"{root}{query}&{token}" if "?" in query else f"{root}{query}?{token}") as answer:
            found = json.loads(answer.read())
        if not quiet:
            wall, busy = time.perf_counter() - start, _cpu(process) - spent
            print(f"{name:<44}{1000 * wall:>9.0f} ms{1000 * busy:>9.0f} ms of CPU")
        return found

    timed("first screen: folders", "folders")
    told = timed("first screen: funnel, histograms", "folder?folder=0")
    timed("a moved slider, sample, while reading", "count?folder=0&exact=0&set=clip_score.min=0.29")
    while not told["ready"] and not told["problem"]:
        time.sleep(0.2)
        peak = max(peak, process.memory_info().rss)
        told = timed("", "count?folder=0&exact=0", quiet=True)
    seconds = time.perf_counter() - began
    print(f"{'all rows read after':<44}{seconds:>9.1f} s   ({told['of']:,} rows) {told['problem'] or ''}")
    for value in (0.27, 0.31, 0.305):
        timed("a moved slider, sample", f"count?folder=0&exact=0&set=clip_score.min={value}")
        timed("a moved slider, exact", f"count?folder=0&set=clip_score.min={value}")
    timed(
        "three moved sliders, exact",
        "count?folder=0&set=image_size.min_side=300&set=clip_score.min=0.29&set=text_length.max_words=20",
    )
    timed("rows at the edge", "edge?folder=0&set=clip_score.min=0.305&rule=clip_score&parameter=min")
    timed("rows of a rule, highest first", "rows?folder=0&rule=clip_score&order=-clip_score")
    timed("plane", "plane?folder=0&x=clip_score&x_low=0.1&x_high=0.5&y=words&y_low=1&y_high=30")
    timed("text in the ledgers, first time", "rows?folder=0&text=123456")
    return max(peak, process.memory_info().rss)


if __name__ == "__main__":
    main()
