"""What an HTTP answer says and holds: robots directives, Retry-After, and a body of bounded size."""

import re
import zlib
from email.utils import parsedate_to_datetime

import aiohttp

from corpus.verdicts import Lost, failed

ROBOTS = ("noai", "noimageai", "noindex", "noimageindex")
AGENT = "gristmill"  # the name by which an X-Robots-Tag header may address this crawler
_CHUNK = 1 << 16


class FetchError(Lost):
    """A URL gave no answer that may be kept: an error of `kind`. `retry`: worth another attempt, after `wait` s."""

    def __init__(self, kind: str, detail: str, *, retry: bool = False, wait: float | None = None):
        super().__init__(failed(kind, detail.encode("utf-8", "replace").decode()))  # servers send what is no text
        self.retry, self.wait = retry, wait


async def read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Read a body of at most `max_bytes`, unpacking gzip or deflate that nobody asked for under the same cap."""
    declared = response.content_length
    if declared is not None and declared > max_bytes:
        raise FetchError("too_large", f"declares {declared} bytes, more than {max_bytes}")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise FetchError("bad_encoding", f"content encoding {encoding[:50]!r}")
    unpack = _Inflater(max_bytes) if encoding not in ("", "identity") else None
    parts, size, sent = [], 0, 0
    async for chunk in response.content.iter_chunked(_CHUNK):
        sent += len(chunk)
        chunk = unpack(chunk) if unpack else chunk
        size += len(chunk)
        if max(size, sent) > max_bytes:
            raise FetchError("too_large", f"more than {max_bytes} bytes{' unpacked' if unpack else ''}")
        parts.append(chunk)
    if unpack and not unpack.finished:
        raise FetchError("bad_encoding", f"{encoding} data ends early")
    return b"".join(parts)


class _Inflater:
    """Bounded decompression: never makes more than one byte above the cap, however small the input."""

    def __init__(self, max_bytes: int):
        self._left, self._stream = max_bytes + 1, zlib.decompressobj(47)
        self._start: bytes | None = b""  # what came before the first output, for the second try below

    @property
    def finished(self) -> bool:
        return self._stream.eof

    def __call__(self, chunk: bytes) -> bytes:
        if self._left <= 0:
            return b""
        if self._start is not None:
            self._start += chunk
        try:
            made = self._stream.decompress(chunk, self._left)
        except zlib.error as error:
            if self._start is None:
                raise FetchError("bad_encoding", str(error)) from None
            start, self._start = self._start, None
            self._stream = zlib.decompressobj(-15)  # "deflate" without its zlib wrapping is common
            return self(start)
        if made or (self._start is not None and len(self._start) > _CHUNK):
            self._start = None
        self._left -= len(made)
        return made


def forbidding_directive(headers: list[str], forbidden: tuple[str, ...]) -> str | None:
    """The first directive of X-Robots-Tag headers that forbids, if any.

    `noai, noindex` speaks to everyone, `otherbot: noindex` to the named crawler (Google's robots meta tag reference).
    """
    for header in headers:
        agent, colon, rest = header.partition(":")
        named = colon and re.fullmatch(r"[\w.*-]+", agent.strip()) and agent.strip().lower() != "unavailable_after"
        if named and agent.strip().lower() not in (AGENT, "*"):
            continue
        for directive in (rest if named else header).split(","):
            if directive.strip().lower() in forbidden:
                return directive.strip().lower()
    return None


def retry_after(value: str | None, date: str | None = None) -> float | None:
    """Seconds of a Retry-After header: a number, or a date, taken against the server's own Date."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value.strip()[:9])
    try:
        return max(0.0, (parsedate_to_datetime(value) - parsedate_to_datetime(date)).total_seconds())
    except (ValueError, TypeError):
        return None
