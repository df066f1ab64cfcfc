"""An HTTP client for lists of URLs from strangers: polite, bounded in everything, and clear about what went wrong.

One request is at most `redirects` + 1 hops of at most `total` seconds and `max_bytes` bytes together; every hop's
address is checked (see net_guard), no cookie, password, proxy or referrer travels with it. No Ray, no files.
"""

import asyncio
import socket
import ssl
import zlib
from collections import defaultdict
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import aiohttp
from yarl import URL

from corpus.bugs import raise_ours
from corpus.verdicts import Lost, dropped
from pipelines.fetch.answers import AGENT, ROBOTS, FetchError, forbidding_directive, read_body, retry_after
from pipelines.fetch.guard import (
    DnsCache,
    ForbiddenAddress,
    GuardedResolver,
    guarded_socket,
    is_literal,
    why_forbidden,
)

_RETRIED_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_REDIRECTS = (301, 302, 303, 307, 308)
_LONGEST_URL = 4096


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a fetch may cost. Times in seconds."""

    total: float = 30.0  # per attempt, over all hops, waiting for a free slot not counted
    connect: float = 10.0
    read: float = 10.0  # between two pieces of an answer
    max_bytes: int = 20 << 20  # of the body, also after decompression
    redirects: int = 5
    retries: int = 2
    backoff: float = 0.5  # before the first retry, doubled for each further one
    longest_wait: float = 30.0  # a server that asks for more (Retry-After) is not asked again
    connections: int = 128  # open at a time
    per_host: int = 6  # of these, to one host
    allow_private: bool = False
    robots: tuple[str, ...] = ROBOTS  # X-Robots-Tag directives that forbid keeping an image
    user_agent: str = f"Mozilla/5.0 (compatible; {AGENT})"


@dataclass(frozen=True, slots=True)
class Answer:
    """A body with the URL that gave it, after redirects."""

    data: bytes
    url: str


@dataclass(slots=True)
class _Host:
    slots: asyncio.Semaphore
    not_before: float = 0.0  # the loop's time until which the host asked to be left alone


@dataclass
class Client:
    """`async with Client(limits, dns) as client: answer = await client.fetch(url)`; raises Lost.

    `given_up(host)` is asked before every request; when it says so, the URL fails as `host_unavailable`.
    """

    limits: Limits
    dns: DnsCache = field(default_factory=DnsCache)
    given_up: Callable[[str], bool] = lambda host: False

    async def __aenter__(self) -> "Client":
        limits = self.limits
        self._hosts = defaultdict(lambda: _Host(asyncio.Semaphore(limits.per_host)))
        self._connections = asyncio.Semaphore(limits.connections)
        self._resolver = GuardedResolver(self.dns, limits.allow_private)
        connector = aiohttp.TCPConnector(
            limit=0, use_dns_cache=False, resolver=self._resolver,
            socket_factory=partial(guarded_socket, limits.allow_private),
        )  # fmt: skip
        self._session = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, trust_env=False, cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect, sock_read=limits.read),
            headers={"User-Agent": limits.user_agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
        )  # fmt: skip
        return self

    async def __aexit__(self, *_) -> None:
        await self._session.close()
        await self._resolver.close()

    async def fetch(self, url: str) -> Answer:
        """Get a URL: follow redirects, retry what may pass. Raises Lost: FetchError, or the rule x_robots_tag."""
        attempt = 0
        while True:
            try:
                return await self._follow(url)
            except FetchError as error:
                wait = error.wait if error.wait is not None else self._backoff(url, attempt)
                if not error.retry or attempt >= self.limits.retries or wait > self.limits.longest_wait:
                    raise
            attempt += 1
            await asyncio.sleep(wait)

    def _backoff(self, url: str, attempt: int) -> float:
        # Spread over +-25 % so that retries do not march in step; by hash, so that a run can be repeated.
        spread = 0.75 + 0.5 * (zlib.crc32(f"{attempt}{url}".encode(errors="replace")) / 2**32)
        return self.limits.backoff * 2**attempt * spread

    async def _follow(self, url: str) -> Answer:
        target = checked_url(url, self.limits.allow_private)
        budget, loop = self.limits.total, asyncio.get_running_loop()
        for _ in range(self.limits.redirects + 1):
            await self._look_up(target)
            async with self._slot(target.host) as host:
                started = loop.time()
                answer = await self._request(target, budget, host)
                budget -= loop.time() - started
            if isinstance(answer, bytes):
                return Answer(answer, str(target))
            target = checked_url(answer, self.limits.allow_private)
        raise FetchError("too_many_redirects", f"more than {self.limits.redirects}")

    async def _look_up(self, url: URL) -> None:
        """Resolve the name before a slot is taken: slow names neither hold up others nor use up the request's time."""
        if is_literal(url.host):
            return
        try:
            await self._resolver.resolve(url.raw_host)
        except ForbiddenAddress as error:
            raise FetchError("forbidden_address", str(error)) from None
        except OSError as error:
            again = error.errno == socket.EAI_AGAIN
            raise FetchError("dns_failed", error.strerror or str(error), retry=again) from None

    @asynccontextmanager
    async def _slot(self, name: str):
        host, loop = self._hosts[name], asyncio.get_running_loop()
        async with host.slots:
            while (pause := host.not_before - loop.time()) > 0:
                await asyncio.sleep(pause)
            if self.given_up(name):
                raise FetchError("host_unavailable", "")
            async with self._connections:
                yield host

    async def _request(self, url: URL, budget: float, host: _Host) -> bytes | URL:
        """One hop: the body, or where it redirects to."""
        try:
            async with (
                asyncio.timeout(max(0.0, budget)),
                self._session.get(url, allow_redirects=False) as response,
            ):
                return await self._judge(response, host)
        except Lost:
            raise
        except Exception as error:
            raise_ours(error)
            raise _explain(error, self.limits) from None

    async def _judge(self, response: aiohttp.ClientResponse, host: _Host) -> bytes | URL:
        if found := forbidding_directive(response.headers.getall("X-Robots-Tag", []), self.limits.robots):
            raise Lost(dropped("x_robots_tag", detail=found))
        if response.status in _REDIRECTS:
            return _redirect(response)
        if response.status != 200:
            raise self._refusal(response, host)
        return await read_body(response, self.limits.max_bytes)

    def _refusal(self, response: aiohttp.ClientResponse, host: _Host) -> FetchError:
        wait, loop = None, asyncio.get_running_loop()
        if response.status in (429, 503):
            wait = retry_after(response.headers.get("Retry-After"), response.headers.get("Date"))
            if wait is not None and wait <= self.limits.longest_wait:
                host.not_before = max(host.not_before, loop.time() + wait)
        retry = response.status in _RETRIED_STATUSES
        return FetchError(f"http_{response.status}", response.reason or "", retry=retry, wait=wait)


def checked_url(url: str | URL, allow_private: bool) -> URL:
    """Parse a URL, without its password and fragment. Raises FetchError `bad_url` or `forbidden_address`."""
    if len(str(url)) > _LONGEST_URL:
        raise FetchError("bad_url", f"{len(str(url))} characters")
    try:
        parsed = URL(url)
        host = parsed.host
        parsed = parsed.with_fragment(None) if parsed.raw_fragment else parsed
        parsed = parsed.with_user(None) if host and "@" in parsed.raw_authority else parsed
    except (ValueError, TypeError) as error:
        raise FetchError("bad_url", f"{error}"[:200]) from None
    if parsed.scheme not in ("http", "https") or not host:
        raise FetchError("bad_url", f"not an http address: {str(url)[:100]!r}")
    if is_literal(host) and (reason := why_forbidden(host, allow_private)):
        raise FetchError("forbidden_address", reason)
    return parsed


def _redirect(response: aiohttp.ClientResponse) -> URL:
    location = response.headers.get("Location") or response.headers.get("URI") or ""
    try:
        if not location or len(location) > _LONGEST_URL:
            raise ValueError(f"Location of {len(location)} characters")
        return response.url.join(URL(location))
    except ValueError as error:
        raise FetchError("bad_redirect", str(error)[:200]) from None


def _explain(error: Exception, limits: Limits) -> FetchError:
    """The ledger's words for what a request raised; they hold no measured times, so that a rerun says the same."""
    cause = error
    while cause is not None and not isinstance(cause, ForbiddenAddress):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        return FetchError("forbidden_address", str(cause))
    match error:
        case aiohttp.ConnectionTimeoutError():
            return FetchError("connect_timeout", f"no connection within {limits.connect:g} s", retry=True)
        case aiohttp.ServerTimeoutError():
            return FetchError("read_timeout", f"no data for {limits.read:g} s", retry=True)
        case TimeoutError():
            return FetchError("timeout", f"not finished after {limits.total:g} s")
        case aiohttp.ClientConnectorDNSError():
            again = getattr(error.os_error, "errno", None) == socket.EAI_AGAIN
            return FetchError("dns_failed", str(error.os_error.strerror or error.os_error), retry=again)
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return FetchError("tls_failed", str(error)[:200])
        case aiohttp.ClientConnectorError():
            return FetchError("connect_failed", str(error.os_error.strerror or error.os_error), retry=True)
        case aiohttp.ClientPayloadError():
            return FetchError("short_body", "the body ends before its declared length", retry=True)
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
            return FetchError("connection_lost", "the server closed the connection without an answer", retry=True)
        case aiohttp.ClientResponseError() | aiohttp.http_exceptions.HttpProcessingError():
            return FetchError("bad_response", f"not HTTP: {error.message}"[:200])
        case aiohttp.InvalidURL() | UnicodeError():
            return FetchError("bad_url", str(error)[:200])
        case aiohttp.ClientError() | ValueError():  # headers that no parser foresaw
            return FetchError("bad_response", f"{type(error).__name__}: {error}"[:200])
    raise error
