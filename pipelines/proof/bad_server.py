"""An HTTP server that behaves badly on purpose, by path. It writes raw bytes, so it can break any rule."""

import asyncio
import gzip
import io
import random
import threading
import zlib
from collections import Counter
from functools import lru_cache
from urllib.parse import unquote

from PIL import Image


def jpeg(seed: int = 0, side: int = 64) -> bytes:
    """A small JPEG that differs by seed."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (seed % 256, seed // 256 % 256, 90)).save(file, "JPEG")
    return file.getvalue()


def reply(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """One HTTP answer; `length` lies about the body's."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@lru_cache
def bomb() -> bytes:
    """About 100 KB that unpack to 20 MB."""
    return gzip.compress(bytes(20 << 20), 1, mtime=0)


class BadServer:
    """`with BadServer() as server: server.url("/ok/1")`; `server.requests` counts the paths asked for.

    `port` 0 takes one that is free. `trouble` is the share of requests that are late, refused, cut off or dropped.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0):
        self.host, self.port, self.connections = host, port, 0
        self.requests: Counter[str] = Counter()
        self.trouble, self._rng = 0.0, random.Random(0)
        self.active, self.most_active = 0, 0  # requests being answered at a time
        self.failures_left: Counter[str] = Counter()  # path -> how often it answers 503 before it works
        self.headers: list[str] = []  # the head of every request, as it came

    def __enter__(self) -> "BadServer":
        self._loop, started = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def url(self, path: str) -> str:
        return f"http://{self.host}:{self.port}{path}"

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(started))

    async def _serve(self, started: threading.Event) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, self.host, self.port)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _connection(self, reader, writer) -> None:
        self.connections += 1
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                path = head.split(" ")[1]
                self.requests[path] += 1
                self.headers.append(head)
                self.active += 1
                self.most_active = max(self.most_active, self.active)
                try:
                    keep = await self._answer(path, writer)
                finally:
                    self.active -= 1
                await writer.drain()
                if not keep:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, writer) -> bool:
        """Write one answer; False closes the connection."""
        name, _, rest = path.lstrip("/").partition("/")
        if self._rng.random() < self.trouble:
            name = self._rng.choice(("down", "short", "reset", name))
            await asyncio.sleep(0.3)
        if self.failures_left[path] > 0:
            self.failures_left[path] -= 1
            writer.write(reply("503 Busy"))
            return True
        special = getattr(self, f"_do_{name}", None)
        if special is not None:
            return await special(rest, writer)
        writer.write(ANSWERS[name](rest) if name in ANSWERS else reply("404 Not Found"))
        return True

    async def _do_slow(self, rest, writer) -> bool:
        await asyncio.sleep(0.05)
        writer.write(reply("200 OK", jpeg(int(rest))))
        return True

    async def _do_drip(self, rest, writer) -> bool:
        writer.write(reply("200 OK", length=100_000))
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def _do_silent(self, rest, writer) -> bool:
        await asyncio.sleep(60)
        return False

    async def _do_endless(self, rest, writer) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
            await writer.drain()

    async def _do_headers(self, rest, writer) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-More: " + b"y" * 1000 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0)

    async def _do_short(self, rest, writer) -> bool:
        writer.write(reply("200 OK", jpeg(), length=len(jpeg()) + 100))
        return False

    async def _do_long(self, rest, writer) -> bool:
        writer.write(reply("200 OK", jpeg() + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", length=len(jpeg())))
        return True

    async def _do_reset(self, rest, writer) -> bool:
        writer.transport.abort()
        return False

    async def _do_close(self, rest, writer) -> bool:
        return False

    async def _do_garbage(self, rest, writer) -> bool:
        writer.write(b"\x00\xff\x16\x03 this is no HTTP at all\r\n\r\n")
        return False


ANSWERS = {
    "ok": lambda rest: reply("200 OK", jpeg(int(rest))),
    "loop": lambda rest: reply("301 Moved", b"", "Location: /loop"),
    "hop": lambda rest: reply("302 Found", b"", "Location: /ok/7"),
    "to": lambda rest: reply("302 Found", b"", f"Location: {unquote(rest)}"),
    "nowhere": lambda rest: reply("302 Found"),
    "html": lambda rest: reply("200 OK", b"<html><body>Not found</body></html>", "Content-Type: image/jpeg"),
    "empty": lambda rest: reply("200 OK", b""),
    "cut": lambda rest: reply("200 OK", jpeg()[:-40], "Content-Type: image/jpeg"),
    "huge": lambda rest: reply("200 OK", b"", length=1 << 40),
    "bomb": lambda rest: reply("200 OK", bomb(), "Content-Encoding: gzip"),
    "gzip": lambda rest: reply("200 OK", gzip.compress(jpeg(5), mtime=0), "Content-Encoding: gzip"),
    "deflate": lambda rest: reply("200 OK", zlib.compress(jpeg(5)), "Content-Encoding: deflate"),
    "rawdeflate": lambda rest: reply("200 OK", zlib.compress(jpeg(5), wbits=-15), "Content-Encoding: deflate"),
    "notgzip": lambda rest: reply("200 OK", b"\x7f" * 50, "Content-Encoding: gzip"),
    "br": lambda rest: reply("200 OK", b"abc", "Content-Encoding: br"),
    "busy": lambda rest: reply("429 Too Many Requests", b"", "Retry-After: 0"),
    "later": lambda rest: reply("429 Too Many Requests", b"", "Retry-After: 86400"),
    "down": lambda rest: reply("503 Unavailable"),
    "noai": lambda rest: reply("200 OK", jpeg(), "X-Robots-Tag: noai, noimageai"),
    "noindex": lambda rest: reply("200 OK", jpeg(), "X-Robots-Tag: all", "X-Robots-Tag: NoIndex"),
    "other": lambda rest: reply("200 OK", jpeg(6), "X-Robots-Tag: googlebot: noindex"),
    "us": lambda rest: reply("200 OK", jpeg(6), "X-Robots-Tag: gristmill: noai"),
    "weird": lambda rest: b"HTTP/1.1 404 N\xf0t \xff\xfe found\r\nContent-Length: 0\r\n\r\n",
    "bytes": lambda rest: b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /\xff\xfe/\xed\xa0\x80\r\n\r\n",
    "cookie": lambda rest: reply("200 OK", jpeg(6), "Set-Cookie: a=b"),
}  # fmt: skip
