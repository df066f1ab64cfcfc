"""The fetching of one split: what is tried, what is given up, and how each row is recorded."""

import asyncio
import hashlib
import io
from collections import defaultdict
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from PIL import Image
from yarl import URL

from corpus.catalog import Dataset
from corpus.folder import OutputFolder
from corpus.ledger import ERROR, KEPT, BlownFuse
from corpus.readers.pairs import KEY_COLUMN
from corpus.readers.rows import BadRow
from corpus.readers.urls import UrlRow, held_urls, read_urls
from corpus.records import EncodedImage, Sample, decode_image, from_members, image_header
from corpus.shards import IndexedShard
from corpus.splits import Sink, Split
from corpus.verdicts import Lost, Verdict, failed
from pipelines.fetch.client import Client, Limits
from pipelines.fetch.guard import DnsCache
from pipelines.fetch.ordered import Spool, in_order
from pipelines.work.annotated import records, slice_of

HOST_FAILURES = 20  # in a row; then the host's further rows of the split are not asked for
LOST_HOSTS = 200  # one after another, none of them reachable: it is our network that is down
_UNREACHABLE = {"dns_failed", "connect_failed", "connect_timeout"}
_HOST_IS_DOWN = _UNREACHABLE | {
    "host_unavailable", "tls_failed", "timeout", "read_timeout", "connection_lost", "http_429", "http_503"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fetched:
    """An image. The spool holds its bytes under `ticket`; `digest` (SHA-256) and `size` are of what the server sent."""

    ticket: bytes | tuple[int, int]
    ext: str
    width: int
    height: int
    digest: str
    size: int
    url: str


@dataclass(frozen=True, slots=True)
class Earlier:
    """A row that an earlier run settled: its ledger row, and its place in the shard if it was kept."""

    ledger: dict
    place: int | None


def fetch_split(
    split: Split, sink: Sink, dns: DnsCache, dataset: Dataset, limits: Limits, *,
    max_side: int | None = None, limit: int | None = None, earlier: str | None = None,
) -> None:  # fmt: skip
    """Fetch one split: every row of it goes to the sink once, in input order.

    `earlier` names the folder whose failed rows alone are fetched again; its other rows are copied.
    """
    sink.expects(held_urls(slice_of(split), dataset.reader), limit=limit)
    rows = records(split, sink, limit, lambda piece: read_urls(piece, dataset.columns, dataset.reader))
    settled = EarlierRows(earlier, split.id) if earlier else None
    run = FetchRun(split, sink, dataset, settled, max_side)
    asyncio.run(run.fetch(rows, Client(limits, dns, run.given_up)))
    if settled:
        settled.withdraw()


class EarlierRows:
    """What an earlier run made of a split's rows."""

    def __init__(self, url: str, split: str):
        self._folder, self._split = OutputFolder(url), split
        ledger = self._folder.table(self._folder.manifest(split)).to_pylist()
        kept = [entry["row"] for entry in ledger if entry["outcome"] == KEPT]
        places = {row: place for place, row in enumerate(kept)}
        self._rows = {e["row"]: Earlier(e, places.get(e["row"])) for e in ledger if e["outcome"] != ERROR}
        self._shard = IndexedShard(f"{self._folder.url}/{split}.tar")

    def get(self, row: int) -> Earlier | None:
        """What became of a row, unless it failed, or its sample is no longer as it was written."""
        earlier = self._rows.get(row)
        rotten = earlier and earlier.place is not None and not self._shard.whole(earlier.place)
        return None if rotten else earlier

    def sample(self, place: int) -> Sample:
        return from_members(self._shard[place][1])

    def withdraw(self) -> None:
        self._folder.withdraw(self._split)


class FetchRun:
    """The fetching of one split: what is tried, what is given up, and the rows as they are recorded."""

    def __init__(self, split: Split, sink: Sink, dataset: Dataset, settled: EarlierRows | None, max_side: int | None):
        self._split, self._sink, self._dataset, self._settled = split, sink, dataset, settled
        self._max_side = max_side
        self._spool = Spool()
        self._failures: dict[str, int] = defaultdict(int)  # in a row, by host, in the order of the rows
        self._lost: set[str] = set()  # hosts out of reach since the last answer from anyone

    def given_up(self, host: str) -> bool:
        """Whether the host failed so often that it is left alone for the rest of the split."""
        return self._failures.get(host, 0) >= HOST_FAILURES

    async def fetch(self, rows, client: Client) -> None:
        """Fetch (ordinal, UrlRow or BadRow) pairs and record them in order."""
        unfinished = 8 * client.limits.connections  # some wait for their host's turn, and must not keep others waiting
        try:
            async with client, aclosing(in_order(rows, partial(self._fetch_row, client), unfinished)) as results:
                async for (row, record), result in results:
                    self._record(row, record, result)
        finally:
            self._spool.close()

    async def _fetch_row(self, client: Client, item: tuple[int, UrlRow | BadRow]) -> Fetched | Verdict | Earlier:
        row, record = item
        if self._settled and (earlier := self._settled.get(row)):
            return earlier
        if isinstance(record, BadRow):
            return failed(record.kind, record.detail)
        try:
            answer = await client.fetch(record.url)
            return await self._examine(answer.data, answer.url)
        except Lost as lost:
            return lost.verdict

    async def _examine(self, data: bytes, url: str) -> Fetched:
        """Look at the bytes, never at the name or the declared type. Raises BadImage."""
        ext, width, height = image_header(data)
        digest, size = hashlib.sha256(data).hexdigest(), len(data)
        if self._max_side and max(width, height) > self._max_side:
            data, width, height = await asyncio.to_thread(shrink, data, self._max_side)
            ext = "jpg"
        return Fetched(self._spool.put(data), ext, width, height, digest, size, url)

    def _record(self, row: int, record: UrlRow | BadRow, result: Fetched | Verdict | Earlier) -> None:
        if isinstance(result, Earlier):
            self._copy(result)
            return
        key, about = f"{self._dataset.name}/{self._split.id}/{row:06d}", {}
        if isinstance(record, UrlRow):
            about = {"url": record.url, "clip_score": record.clip_score, "source_key": record.key}
        if isinstance(result, Fetched):
            self._heard_from(_host(record.url))
            columns = {"width": result.width, "height": result.height, "bytes": result.size, "sha256": result.digest}
            self._sink.keep(self._sample(key, row, record, result), row, **about, **columns)
            return
        if isinstance(record, UrlRow):
            result = self._judge_host(_host(record.url), result)
            about["text_before"] = record.text
        self._sink.lose(key, row, result, **about)

    def _sample(self, key: str, row: int, record: UrlRow, result: Fetched) -> Sample:
        source = {"url": record.url, "row": row, "sha256": result.digest}
        if record.key:
            source[KEY_COLUMN] = record.key
        if result.url != record.url and URL(record.url) != URL(result.url):
            source["final_url"] = result.url
        return Sample(
            key=key, dataset=self._dataset.name, task="caption", language=self._dataset.language, text=record.text,
            width=result.width, height=result.height,
            images=[EncodedImage(self._spool.take(result.ticket), result.ext)],
            scores={} if record.clip_score is None else {"clip": record.clip_score}, source=source,
        )  # fmt: skip

    def _copy(self, earlier: Earlier) -> None:
        columns = {name: value for name, value in earlier.ledger.items() if value is not None and name != "outcome"}
        key, row = columns.pop("key"), columns.pop("row")
        if earlier.place is not None:
            self._sink.keep(self._settled.sample(earlier.place), row, **columns)
        else:
            self._sink.drop(key, row, **columns)

    def _heard_from(self, host: str) -> None:
        self._failures.pop(host, None)
        self._lost.clear()

    def _judge_host(self, host: str, verdict: Verdict) -> Verdict:
        """Count a host's failures in the order of the rows, so that the ledger does not depend on timing."""
        if verdict.rule in ("bad_url", "forbidden_address"):  # nobody was asked
            return verdict
        if verdict.rule not in _HOST_IS_DOWN:
            self._heard_from(host)
            return verdict
        if verdict.rule in _UNREACHABLE:
            self._lost.add(host)
            if len(self._lost) >= LOST_HOSTS and not self._settled:
                why = f"{LOST_HOSTS} hosts one after another are out of reach; is there a network?"
                raise BlownFuse(f"{why} Last: {verdict.detail}")
        elif verdict.rule != "host_unavailable":
            self._lost.clear()
        self._failures[host] += 1
        if self._failures[host] <= HOST_FAILURES:
            return verdict
        return failed("host_unavailable", f"{host} failed {HOST_FAILURES} times in a row and was not asked again")


def _host(url: str) -> str:
    try:
        return URL(url).host or ""
    except ValueError:
        return ""


def shrink(data: bytes, max_side: int) -> tuple[bytes, int, int]:
    """Scale an image so that its longer side is `max_side` pixels; JPEG bytes, width, height. Raises BadImage."""
    image = decode_image(data)
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    return file.getvalue(), *image.size
