#!/usr/bin/env python
"""Time the text and metadata rules over captions like LAION's, on one core, in CPU seconds.

The corpus is drawn from a seed, so the benchmark needs no data. Its captions have the lengths of 680 real LAION-400M
rows (median 47 characters and 7 words, 95th percentile 120 and 18) and the shares of dirt in SHARES, which are those
rows' or higher. Beside it, with --data-juicer PYTHON, the same kinds of cleaning through Data-Juicer's own operators,
in the same run on the same captions.

    python benchmarks/text_rules.py --rows 2000000 --data-juicer /tmp/dj/bin/python
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not benchmarks/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cleaners import rules

SETTINGS = {
    "html": {}, "patterns": {}, "aspect_ratio": {}, "image_size": {}, "language": {}, "emoji": {}, "text_length": {},
    "clip_score": {},
}  # fmt: skip
BATCH = 131_072

# kind of dirt -> share of captions. Real rows: entities 0.6 %, tags 0.7 %, stock phrases 2.9 %, URLs 0.7 %, file names
# 0.6 %, slugs 2.4 %, underscores 1.8 %, CSV quotes 2.9 %, long numbers 1.6 %, odd spaces 4.7 %, accents 5 %.
SHARES = {
    "entity": 0.03, "tag": 0.01, "stock": 0.04, "url": 0.01, "file": 0.01, "slug": 0.024, "underscore": 0.018,
    "csv": 0.029, "number": 0.016, "space": 0.047, "run": 0.02, "edge": 0.02, "social": 0.008, "zero_width": 0.003,
    "mojibake": 0.002, "accent": 0.05, "emoji": 0.015, "foreign": 0.10, "null": 0.001,
}  # fmt: skip
_WORDS = (
    "red blue black white green old new big small vintage modern classic wooden leather silver golden large mini round "
    "summer winter spring christmas wedding birthday kitchen garden bedroom living room dining office outdoor beach "
    "house table chair lamp sofa bed rug shirt dress shoes boots jacket hat ring necklace earrings watch bag wallet "
    "case cover phone camera car truck bike engine wheel tire boat ship train airport bridge tower castle church city "
    "street market park lake river mountain forest island coast sunset sunrise snow rain cloud sky moon star dog cat "
    "horse bird fish bear lion flower rose tree leaf fruit apple orange cake bread coffee tea wine beer pizza salad "
    "man woman boy girl baby family children team player coach actor singer artist doctor teacher student president "
    "minister king queen game match race cup league season final album song movie poster print painting drawing vector "
    "pattern texture background template design illustration icon logo sticker card book guide review story history "
    "with for from the of in on at by and to a is set pack piece size style home art photo view front back side "
    "collection edition series show festival party event conference school college museum library hotel restaurant "
    "Anna James Maria John Chen Kate Paul Rosa Omar Lena York Paris London Texas Boston Nikon Ford Sony Apple"
)
_FOREIGN = "красивый дом у моря 赤いドレスの女性 한국 전통 음식 สวนสวย بيت جميل Łódź kościół příběh ελληνικό νησί"
_ACCENTED = "café Beyoncé São Zürich crêpe naïve Málaga Citroën résumé fiancée"
WORDS, FOREIGN, ACCENTED = np.array(_WORDS.split(), object), _FOREIGN.split(), _ACCENTED.split()
EMOJI = ["😀", "❤️", "👨‍👩‍👧", "🇨🇳", "👍🏽", "🔥", "1️⃣", "✨"]
DIRT = {
    "entity": [" &amp; ", " &quot;", "&#39;s ", " &nbsp;", " &copy; ", "&eacute;"],
    "tag": ["<br>", "<b>sale</b>", '<a href="http://example.com/x">', "</span>", '<font color="red">', "<p class=x>"],
    "stock": [" Royalty Free Stock Photos", " Stock Photo", " stock image", " - Stock Illustration", " free shipping"],
    "url": [" http://www.example.com/gallery/41206", " www.example.org", " johndoe.com", " https://t.co/r67DX4Px0R"],
    "file": [".jpg", " IMG_2034.jpg", " DSC0123", ".png"],
    "number": [" 101403863", " - 16630372", " #7911579", " 9780340829752"],
    "space": ["  ", "\u00a0", "   ", "\t", " \n"],
    "run": ["!!!", "...", " *** ", "?!?!", "-----", " soooooo "],
    "edge": [",", " -", " |", ":"],
    "social": [" #summer #love", " @someone", " #NewYear"],
    "zero_width": ["\u200b", "\ufeff", "\u00ad"],
    "mojibake": [" cafÃ© ", "â€™s ", " â€“ ", "Ã©"],
}


def corpus(rows: int, seed: int) -> pa.Table:
    """Draw captions with sizes and CLIP scores."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(2.07, 0.55, rows), 1, 60).astype(int)
    words = WORDS[rng.integers(0, len(WORDS), lengths.sum())]
    chosen = {kind: rng.random(rows) < share for kind, share in SHARES.items()}
    plain, ends = words.tolist(), np.cumsum(lengths).tolist()
    style, draws = rng.random(rows).tolist(), rng.integers(0, 1_000_000, rows).tolist()
    texts, start = [], 0
    for end, how, draw in zip(ends, style, draws, strict=True):
        texts.append(_caption(plain[start:end], how, draw))
        start = end
    for kind, mask in chosen.items():
        for row in np.flatnonzero(mask).tolist():
            texts[row] = _dirty(texts[row] or "", kind, draws[row])
    width, shape = rng.lognormal(6.3, 0.6, rows), rng.lognormal(0, 0.45, rows)
    columns = {"text": pa.array(texts, pa.string()), "width": pa.array(width.astype(np.int32))}
    columns |= {"height": pa.array((width * shape).astype(np.int32))}
    return pa.table(columns | {"clip_score": pa.array(rng.normal(0.31, 0.03, rows))})


def _caption(words: list[str], how: float, draw: int) -> str:
    """Join words as captions are: a third hold a number, a quarter a hyphen, some commas, brackets, full stops."""
    if how < 0.36:
        words[draw % len(words)] = str(draw % 3000)
    if how > 0.76:
        words[-1] = f"{words[0]}-{words[-1]}"
    if 0.30 < how < 0.45:
        words[0] += ","
    text = " ".join(words)
    text = text.title() if draw % 2 else text.capitalize()
    return f"{text}." if 0.45 < how < 0.55 else f"{text} ({draw % 100})" if 0.55 < how < 0.62 else text


def _dirty(text: str, kind: str, draw: int) -> str | None:
    if kind == "null":
        return None
    if kind == "slug":
        return text.lower().replace(" ", "-")
    if kind == "underscore":
        return text.replace(" ", "_")
    if kind == "csv":
        return '"' + text.replace(" ", '"" ', 1) + '"'
    pool = {"accent": ACCENTED, "emoji": EMOJI, "foreign": FOREIGN}.get(kind)
    if pool:
        return f"{text} {pool[draw % len(pool)]} {pool[draw // 7 % len(pool)] if kind == 'foreign' else ''}".rstrip()
    piece = DIRT[kind][draw % len(DIRT[kind])]
    at = len(text) if kind in ("stock", "file", "edge", "social", "number") else text.find(" ", draw % 40)
    return text[:at] + piece + text[at:] if at >= 0 else text + piece


# --- Timing ---


def cpu(work, repeat: int = 1) -> float:
    """Return the CPU seconds of the quickest of `repeat` runs of `work`."""
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def through_rules(table: pa.Table, settings: dict) -> pa.Table:
    return rules.clean(table, settings, language="en")


def with_changed_texts(verdicts: pa.Table, before: pa.ChunkedArray) -> pa.Table:
    """Keep both texts where they differ and the caption of what was dropped, as a ledger does."""
    changed = pc.fill_null(pc.not_equal(before, verdicts["text_after"]), False)
    telling = pc.or_(changed, pc.not_equal(verdicts["outcome"], "kept"))
    after = pc.if_else(changed, verdicts["text_after"], None)
    table = verdicts.drop_columns(["text_after"])
    return table.append_column("text_before", pc.if_else(telling, before, None)).append_column("text_after", after)


def write_corpus(file: Path, rows: int, seed: int) -> None:
    """Write `rows` captions in row groups of BATCH, drawn one group at a time."""
    with pq.ParquetWriter(file, corpus(1, seed).schema) as writer:
        for first in range(0, rows, BATCH):
            writer.write_table(corpus(min(BATCH, rows - first), seed + first))


def to_ledger(source: Path, target: Path, times: int) -> list[tuple[int, float]]:
    """Stream a parquet file through all rules into a ledger, `times` times over; return (rows, peak MiB) after each."""
    peaks, rows, writer = [], 0, None
    for _ in range(times):
        for batch in pq.ParquetFile(source).iter_batches(BATCH):
            table = pa.table(batch)
            verdicts = with_changed_texts(through_rules(table, SETTINGS), table["text"])
            writer = writer or pq.ParquetWriter(target, verdicts.schema, compression="zstd")
            writer.write_table(verdicts)
            rows += table.num_rows
        peaks.append((rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
    writer.close()
    return peaks


def report(name: str, rows: int, seconds: float) -> float:
    print(f"{name:<40}{rows:>12,}{seconds:>10.2f}{rows / seconds:>14,.0f}", flush=True)
    return rows / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=int, default=1, help="stream the corpus this often: memory stays flat")
    parser.add_argument("--data-juicer", metavar="PYTHON", help="python of an environment that holds py-data-juicer")
    parser.add_argument("--juicer-rows", type=int, default=20_000)
    args = parser.parse_args()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with tempfile.TemporaryDirectory() as folder:
        run(args, Path(folder))


def run(args: argparse.Namespace, folder: Path) -> None:
    write_corpus(folder / "captions.parquet", args.rows, args.seed)
    few = pq.read_table(folder / "captions.parquet").slice(0, 2 * BATCH)
    print(f"{'':<40}{'rows':>12}{'CPU s':>10}{'rows/s/core':>14}")
    scan = cpu(lambda: pc.match_substring_regex(few["text"], "<[a-z]|&[a-z#]"), 5)
    report("yardstick: one small RE2 expression", few.num_rows, scan)
    through_rules(few, SETTINGS)  # compile what is compiled once
    for name in SETTINGS:
        report(name, few.num_rows, cpu(lambda name=name: through_rules(few, {name: {}}), 2))
    fast = report("all rules", few.num_rows, cpu(lambda: through_rules(few, SETTINGS), 5))
    peaks = []
    seconds = cpu(lambda: peaks.extend(to_ledger(folder / "captions.parquet", folder / "ledger.parquet", args.times)))
    report("parquet -> all rules -> ledger", peaks[-1][0], seconds)
    print("peak memory: " + ", ".join(f"{peak:,.0f} MiB after {rows:,} rows" for rows, peak in (peaks[0], peaks[-1])))
    outcomes = pq.read_table(folder / "ledger.parquet", columns=["rule"])["rule"].value_counts().to_pylist()
    print("outcomes: " + ", ".join(f"{o['values'] or 'kept'} {o['counts'] / peaks[-1][0]:.1%}" for o in outcomes))
    if args.data_juicer:
        beside_data_juicer(args, few.slice(0, args.juicer_rows), folder, fast)


# --- Data-Juicer ---

# Its operators for what our html, patterns, emoji and text_length rules do; `language` has none without a model.
JUICER = """
import json, sys
from data_juicer.ops.mapper.clean_html_mapper import CleanHtmlMapper
from data_juicer.ops.mapper.clean_links_mapper import CleanLinksMapper
from data_juicer.ops.mapper.fix_unicode_mapper import FixUnicodeMapper
from data_juicer.ops.filter.special_characters_filter import SpecialCharactersFilter
from data_juicer.ops.filter.text_length_filter import TextLengthFilter
from data_juicer.core.data import NestedDataset as Dataset

texts = json.load(open(sys.argv[1]))
operators = [FixUnicodeMapper(), CleanHtmlMapper(), CleanLinksMapper(),
             SpecialCharactersFilter(min_ratio=0.0, max_ratio=0.5), TextLengthFilter(min_len=6, max_len=1000)]
for operator in operators:
    operator.num_proc = 1
data = Dataset.from_list([{"text": text} for text in texts])
for operator in operators:
    data = operator.run(data)
print("JUICER kept", len(data))
"""


def beside_data_juicer(args: argparse.Namespace, table: pa.Table, folder: Path, fast: float) -> None:
    """Time Data-Juicer's operators on the same captions, in its own environment, and print the ratio.

    Its workers are processes, so all its children's CPU time counts, once without what 100 rows cost (imports, starting
    workers) and once with it.
    """
    texts = [text or "" for text in table["text"].to_pylist()]
    start, whole = (juicer_seconds(args.data_juicer, some, folder) for some in (texts[:100], texts))
    slow = report("Data-Juicer, five text operators", len(texts) - 100, whole - start)
    slowest = report("the same, starting included", len(texts), whole)
    print(f"ours: {fast / slow:,.0f} times as fast, {fast / slowest:,.0f} times with its {start:.1f} s of starting")


def juicer_seconds(python: str, texts: list[str], folder: Path) -> float:
    (folder / "captions.json").write_text(json.dumps(texts))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [python, "-c", JUICER, str(folder / "captions.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if "JUICER kept" not in done.stdout:
        sys.exit(f"Data-Juicer did not finish:\n{done.stderr[-2000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
