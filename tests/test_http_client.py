"""The client against a server that breaks every rule, and against addresses it must never ask."""

import asyncio
import hashlib
import socket
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.verdicts import Lost
from pipelines.fetch import answers as http_answers
from pipelines.fetch import client as http_client
from pipelines.fetch import guard as net_guard
from pipelines.fetch.answers import ROBOTS, forbidding_directive, retry_after
from pipelines.fetch.client import Client, Limits
from pipelines.fetch.guard import DnsCache, ForbiddenAddress, GuardedResolver, why_forbidden
from pipelines.proof.bad_server import BadServer, jpeg

PUBLIC = "127.0.0.2"  # stands for a public server in the tests that keep the loopback network forbidden
QUICK = Limits(total=1.0, connect=0.5, read=0.4, max_bytes=1 << 20, retries=1, backoff=0.01, allow_private=True)


@pytest.fixture(scope="module")
def server():
    with BadServer() as server:
        yield server


def fetch(*urls, limits=QUICK):
    """The answers or FetchErrors of URLs, fetched together."""

    async def run():
        async with Client(limits) as client:
            return await asyncio.gather(*(client.fetch(url) for url in urls), return_exceptions=True)

    return asyncio.run(run())


EXPECTED = {
    "/loop": "too_many_redirects",
    "/nowhere": "bad_redirect",
    "/to/ftp://example.com/a.jpg": "bad_url",
    "/to/http://169.254.169.254/latest/meta-data": "forbidden_address",
    "/to/http://0.0.0.0/": "forbidden_address",
    "/drip": "timeout",
    "/silent": "read_timeout",
    "/endless": "too_large",
    "/headers": "bad_response",
    "/huge": "too_large",
    "/bomb": "too_large",
    "/notgzip": "bad_encoding",
    "/br": "bad_encoding",
    "/short": "short_body",
    "/reset": "connection_lost",
    "/close": "connection_lost",
    "/garbage": "bad_response",
    "/busy": "http_429",
    "/later": "http_429",
    "/down": "http_503",
    "/absent": "http_404",
    "/noai": "x_robots_tag",
    "/noindex": "x_robots_tag",
    "/us": "x_robots_tag",
}


@pytest.mark.parametrize("path", EXPECTED)
def test_bad_answers_end_in_time_with_their_reason(server, path):
    started = time.monotonic()
    (answer,) = fetch(server.url(path))
    assert isinstance(answer, Lost) and answer.kind == EXPECTED[path], answer
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("path, seed", [("/ok/3", 3), ("/hop", 7), ("/gzip", 5), ("/deflate", 5), ("/rawdeflate", 5),
                                        ("/other", 6), ("/long", 0)])  # fmt: skip
def test_good_answers_come_whole(server, path, seed):
    (answer,) = fetch(server.url(path))
    assert hashlib.sha256(answer.data).digest() == hashlib.sha256(jpeg(seed)).digest()


def test_what_follows_a_body_is_not_taken_for_the_next_answer(server):
    async def run():
        async with Client(QUICK) as client:
            return [await client.fetch(server.url(path)) for path in ("/long", "/ok/1", "/long", "/ok/2")]

    assert [a.data for a in asyncio.run(run())] == [jpeg(0), jpeg(1), jpeg(0), jpeg(2)]


def test_retries_stop_when_it_works_or_the_count_is_reached(server):
    server.failures_left["/ok/11"] = 1
    server.failures_left["/ok/12"] = 5
    once, never = fetch(server.url("/ok/11"), server.url("/ok/12"))
    assert once.data == jpeg(11) and server.requests["/ok/11"] == 2
    assert never.kind == "http_503" and server.requests["/ok/12"] == 2


def test_a_server_that_asks_for_a_day_is_not_asked_again(server):
    before = server.requests["/later"]
    fetch(server.url("/later"))
    assert server.requests["/later"] == before + 1


def test_no_more_connections_to_a_host_than_allowed():
    with BadServer() as server:
        limits = Limits(per_host=3, allow_private=True)
        answers = fetch(*(server.url(f"/slow/{i}") for i in range(20)), limits=limits)
    assert [a.data for a in answers] == [jpeg(i) for i in range(20)]
    assert server.most_active == 3


def test_nothing_of_ours_travels_along(server):
    server.headers.clear()
    fetch(server.url("/cookie"))
    for secret in ("user:secret@", ":secret@", "user@"):
        fetch(server.url("/cookie").replace("http://", f"http://{secret}") + "#part")
    assert len(server.headers) == 4
    for head in server.headers:
        lines = {line.split(":")[0].lower() for line in head.splitlines()[1:] if line}
        assert lines == {"host", "user-agent", "accept", "accept-encoding"}
        assert "Accept-Encoding: identity" in head


@pytest.fixture
def only_public_allowed(monkeypatch):
    """The real rules, but for one loopback address that plays the public internet."""

    def judge(address, allow_private=False):
        return None if address == PUBLIC else why_forbidden(address, allow_private)

    monkeypatch.setattr(net_guard, "why_forbidden", judge)
    monkeypatch.setattr(http_client, "why_forbidden", judge)


SPELLINGS = ["127.0.0.1", "localhost", "localhost.", "0x7f.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.1", "0",
             "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[::7f00:1]", "[64:ff9b::7f00:1]",
             "１２７.０.０.１", "127。0。0。1", "LOCALHOST", "user:pw@127.0.0.1", "8.8.8.8@127.0.0.1"]  # fmt: skip


def test_no_spelling_of_this_machine_is_ever_asked(only_public_allowed):
    with BadServer() as forbidden, BadServer(PUBLIC) as public:
        targets = [f"http://{host}:{forbidden.port}/ok/1" for host in SPELLINGS]
        direct = fetch(*targets, limits=Limits(total=5, retries=0))
        redirected = fetch(*(public.url(f"/to/{target}") for target in targets), limits=Limits(total=5, retries=0))
        (works,) = fetch(public.url("/ok/1"), limits=Limits())
    assert works.data == jpeg(1)
    for spelling, answer in [*zip(SPELLINGS, direct, strict=True), *zip(SPELLINGS, redirected, strict=True)]:
        assert isinstance(answer, Lost), spelling
        assert answer.kind in ("forbidden_address", "bad_url", "dns_failed"), (spelling, answer.kind, str(answer))
    assert sum(answer.kind == "forbidden_address" for answer in direct) >= 15
    assert forbidden.connections == 0


def test_a_name_with_public_and_private_addresses_uses_the_public_one(only_public_allowed, monkeypatch):
    with BadServer() as forbidden, BadServer(PUBLIC) as public:
        answers = {"mixed.example": ["127.0.0.1", PUBLIC], "inside.example": ["10.0.0.8", "127.0.0.1"]}
        monkeypatch.setattr(socket, "getaddrinfo", fake_dns(answers))
        mixed, inside = fetch(f"http://mixed.example:{public.port}/ok/2", f"http://inside.example:{forbidden.port}/ok/2",
                              limits=Limits(retries=0, total=5))  # fmt: skip
    assert mixed.data == jpeg(2)
    assert inside.kind == "forbidden_address" and forbidden.connections == 0


def test_the_socket_itself_refuses_when_the_resolver_is_fooled(only_public_allowed, monkeypatch):
    monkeypatch.setattr(GuardedResolver, "resolve", lookup_loopback)
    with BadServer() as forbidden:
        (answer,) = fetch(f"http://rebound.example:{forbidden.port}/ok/1", limits=Limits(retries=0, total=5))
    assert answer.kind == "forbidden_address" and forbidden.connections == 0


async def lookup_loopback(self, host, port=0, family=0):
    return [net_guard._host_entry(host, "127.0.0.1", port, socket.AF_INET)]


def fake_dns(answers):
    def getaddrinfo(host, port, *args, **kwargs):
        if host not in answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in answers[host]]

    return getaddrinfo


def test_names_are_looked_up_once_and_failures_are_remembered(monkeypatch):
    calls = []

    def count(host, *args, **kwargs):
        calls.append(host)
        return fake_dns({"a.example": ["1.1.1.1"]})(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", count)

    async def run():
        cache = DnsCache()
        for _ in range(2):  # two event loops of one process share the answers
            resolver = GuardedResolver(cache, False)
            found = await asyncio.gather(*(resolver.resolve("a.example", 80) for _ in range(5)))
            assert {entry[0]["host"] for entry in found} == {"1.1.1.1"}
            with pytest.raises(OSError):
                await resolver.resolve("b.example", 80)
            await resolver.close()

    asyncio.run(run())
    assert sorted(calls) == ["a.example", "b.example"]


PRIVATE = "10.0.0.1 172.16.0.1 192.168.1.1 127.0.0.1 ::1 fc00::1 100.64.0.1"
CLOSED = """169.254.169.254 fe80::1%eth0 ::ffff:169.254.169.254 fd00:ec2::254 0.0.0.0 224.0.0.1 255.255.255.255
    100.100.100.200 64:ff9b::a9fe:a9fe ::"""


def test_a_slow_name_holds_up_nobody_and_a_passing_failure_is_tried_again(monkeypatch):
    calls = []

    def look(host, *args, **kwargs):
        calls.append(host)
        if host == "slow.example":
            time.sleep(1.5)  # longer than the whole request may take
        if host == "flaky.example" and calls.count(host) == 1:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return fake_dns({host: ["127.0.0.1"]})(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look)
    limits = Limits(total=1.0, retries=1, backoff=0.01, connections=1, allow_private=True)
    with BadServer() as server:
        names = ["slow.example", "flaky.example", "quick.example"]
        answers = fetch(*(f"http://{name}:{server.port}/ok/1" for name in names), limits=limits)
    assert [answer.data for answer in answers] == [jpeg(1)] * 3
    assert calls.count("flaky.example") == 2 and calls.count("slow.example") == 1


@pytest.mark.parametrize("address", PRIVATE.split())
def test_private_networks_open_on_request(address):
    assert why_forbidden(address) and why_forbidden(address, allow_private=True) is None


@pytest.mark.parametrize("address", CLOSED.split())
def test_some_addresses_never_open(address):
    assert why_forbidden(address) and why_forbidden(address, allow_private=True)


@settings(max_examples=200)
@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_every_wrapping(ip):
    bare = bool(why_forbidden(str(ip)))
    assert bare == bool(why_forbidden(f"::ffff:{ip}")) == bool(why_forbidden(f"64:ff9b::{ip}"))


@pytest.mark.parametrize("headers, found", [
    (["noai"], "noai"), (["all"], None), (["nofollow, NOIMAGEAI"], "noimageai"), (["otherbot: noindex"], None),
    (["gristmill: noindex"], "noindex"), (["*: noai"], "noai"), (["unavailable_after: 25 Jun 2010 15:00:00 PST"], None),
    (["otherbot: noai", "noindex"], "noindex"), ([], None), (["noaix"], None),
    (["max-image-preview:large, noai"], None),
])  # fmt: skip
def test_robots_directives(headers, found):
    assert forbidding_directive(headers, ROBOTS) == found


@settings(max_examples=60)
@given(st.binary(max_size=3000), st.sampled_from([15, -15, 31]), st.integers(1, 400), st.integers(10, 3000))
def test_unpacking_gives_the_bytes_back_and_never_more_than_one_above_the_cap(data, wbits, step, cap):
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    packed = packer.compress(data) + packer.flush()
    unpack = http_answers._Inflater(cap)
    made = b"".join(unpack(packed[i : i + step]) for i in range(0, len(packed), step))
    assert made == data[: cap + 1]
    assert unpack.finished or len(data) >= cap


def test_retry_after():
    assert retry_after("7") == 7 and retry_after(None) is None and retry_after("soon") is None
    assert retry_after("Wed, 21 Oct 2015 07:28:30 GMT", "Wed, 21 Oct 2015 07:28:00 GMT") == 30
    assert retry_after("Wed, 21 Oct 2015 07:28:30 GMT") is None


@settings(max_examples=150)
@given(st.text(max_size=60), st.sampled_from(["", "http://", "http://h/", "//", "https://u:p@h"]))
def test_any_text_is_a_checked_url_or_a_bad_one(text, start):
    try:
        url = http_client.checked_url(start + text, False)
    except Lost as error:
        assert error.kind in ("bad_url", "forbidden_address")
    else:
        assert url.scheme in ("http", "https") and url.host and url.user is None


def test_forbidden_address_is_an_exception_of_its_own():
    assert not issubclass(ForbiddenAddress, OSError)  # aiohttp would try the next address and report a plain failure
