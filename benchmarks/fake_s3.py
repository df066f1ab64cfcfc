"""An S3 server on loopback that keeps objects in memory, counts requests, and fails and dawdles as it is told."""

import asyncio
import random
import re
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import count
from xml.sax.saxutils import escape

import xxhash
from aiohttp import web

_DATE, _HTTP_DATE = "2026-01-01T00:00:00.000Z", "Thu, 01 Jan 2026 00:00:00 GMT"
_PAGE = 1000


class FakeS3:
    """A server with one bucket, as a context manager. `objects` are its content by key.

    Every request takes `latency` seconds. A share `failing` of them gets 503 SlowDown, 500 or a reset, by turns that a
    seed decides; a request for a key that ends in one of `poison` always gets 403. `requests` counts by operation.
    """

    def __init__(self, bucket: str = "crawl", *, seed: int = 0):
        self.bucket, self.objects, self.requests = bucket, dict[str, bytes](), Counter[str]()
        self.latency, self.failing, self.poison = 0.0, 0.0, tuple[str, ...]()
        self._parts, self._uploads = dict[str, bytes](), count()
        self._rng, self._loop, self._keys = random.Random(seed), asyncio.new_event_loop(), list[str]()

    def __enter__(self) -> "FakeS3":
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def environment(self) -> dict[str, str]:
        """What a client's process needs to find the server."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}", "AWS_ACCESS_KEY_ID": "a", "AWS_DEFAULT_REGION": "x",
            "AWS_SECRET_ACCESS_KEY": "b", "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        }  # fmt: skip

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        runner = web.AppRunner(self._application(), access_log=None)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{bucket}", self._answer)
        app.router.add_route("*", "/{bucket}/{key:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        key = request.match_info.get("key", "")
        operation = ("LIST" if request.method == "GET" else f"{request.method} bucket") if not key else request.method
        self.requests[operation] += 1
        if self.latency:
            await asyncio.sleep(self.latency)
        if key.endswith(self.poison):
            return web.Response(status=403)
        if self._rng.random() < self.failing:
            self.requests["failed"] += 1
            return self._failure(request, self._rng.randrange(3))
        if request.match_info["bucket"] != self.bucket:
            return web.Response(status=404)
        return await self._bucket(request) if not key else await self._object(request, key)

    def _failure(self, request: web.Request, kind: int) -> web.Response:
        if kind == 2 and request.transport:
            request.transport.abort()
        status, code = ((503, "SlowDown"), (500, "InternalError"), (500, "InternalError"))[kind]
        text = f"<Error><Code>{code}</Code><Message>{code}: please reduce your request rate</Message></Error>"
        return web.Response(status=status, text=text, content_type="application/xml")

    async def _bucket(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            return self._list(request.query)
        if request.method == "POST":
            for key in re.findall(r"<Key>(.*?)</Key>", await request.text()):
                self.objects.pop(key, None)
            return web.Response(text="<DeleteResult/>", content_type="application/xml")
        return web.Response()

    def _list(self, query) -> web.Response:
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
        if len(self._keys) != len(self.objects) or not after:
            self._keys = sorted(self.objects)
        page, more = self._page(prefix, query.get("delimiter"), after)
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{_DATE}</LastModified><ETag>{_etag(self.objects[key])}"
            f"</ETag><Size>{len(self.objects[key])}</Size></Contents>"
            if whole else f"<CommonPrefixes><Prefix>{escape(key)}</Prefix></CommonPrefixes>" for key, whole in page
        )  # fmt: skip
        token = f"<NextContinuationToken>{escape(page[-1][0])}</NextContinuationToken>" if more else ""
        about = f"<KeyCount>{len(page)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>{token}"
        return web.Response(text=f"<ListBucketResult>{about}{found}</ListBucketResult>", content_type="application/xml")

    def _page(self, prefix: str, delimiter: str | None, after: str) -> tuple[list[tuple[str, bool]], bool]:
        page: list[tuple[str, bool]] = []
        for key, whole in self._matching(prefix, delimiter, after):
            if len(page) == _PAGE:
                return page, True
            page.append((key, whole))
        return page, False

    def _matching(self, prefix: str, delimiter: str | None, after: str) -> Iterator[tuple[str, bool]]:
        last = ""
        for i in range(bisect_left(self._keys, max(prefix, after)), len(self._keys)):
            key = self._keys[i]
            if not key.startswith(prefix):
                return
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            shown = key if end < 0 else key[: end + 1]
            if shown not in (last, after) and key != after and not (after.endswith("/") and key.startswith(after)):
                yield shown, end < 0
            last = shown

    async def _object(self, request: web.Request, key: str) -> web.Response:
        if request.method == "POST":
            return await self._multipart(request, key)
        if request.method == "PUT":
            place = f"{request.query['uploadId']}/{int(request.query['partNumber']):05d}" if request.query else key
            stored = self._parts if request.query else self.objects
            stored[place] = await request.read()
            return web.Response(headers={"ETag": _etag(stored[place])})
        if request.method == "DELETE":
            self.objects.pop(key, None)
            return web.Response(status=204)
        if key not in self.objects:
            text = "" if request.method == "HEAD" else "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>"
            return web.Response(status=404, text=text, content_type="application/xml")
        return self._content(request, self.objects[key])

    async def _multipart(self, request: web.Request, key: str) -> web.Response:
        """Begin an upload in parts, or complete it."""
        if "uploads" in request.query:
            text = f"<InitiateMultipartUploadResult><UploadId>{next(self._uploads)}</UploadId>"
            return web.Response(text=f"{text}</InitiateMultipartUploadResult>", content_type="application/xml")
        mine = sorted(place for place in self._parts if place.startswith(f"{request.query['uploadId']}/"))
        self.objects[key] = b"".join(self._parts.pop(place) for place in mine)
        text = f"<CompleteMultipartUploadResult><ETag>{escape(_etag(self.objects[key]))}</ETag>"
        return web.Response(text=f"{text}</CompleteMultipartUploadResult>", content_type="application/xml")

    def _content(self, request: web.Request, data: bytes) -> web.Response:
        headers = {"ETag": _etag(data), "Last-Modified": _HTTP_DATE, "Accept-Ranges": "bytes"}
        if request.method == "HEAD":
            return web.Response(headers=headers | {"Content-Length": str(len(data))})
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", "")):
            start, stop = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            return web.Response(status=206, body=data[start:stop], headers=headers)
        return web.Response(body=data, headers=headers)


@cache
def _etag(data: bytes) -> str:
    return f'"{xxhash.xxh3_128_hexdigest(data)}"'
