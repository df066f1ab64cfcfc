"""Which addresses a crawl may talk to, and a DNS resolver that answers with those alone.

A list of URLs from the web is a list of orders from strangers: without this they could make the downloader ask for
http://169.254.169.254/ (a cloud's credentials) or for a router's settings page. Names are resolved once, the
addresses are checked, and the connection goes to the checked address, so a name that changes its answer in between
gains nothing. `guarded_socket` checks again at the last moment before connecting.
"""

import asyncio
import ipaddress
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from aiohttp.abc import AbstractResolver

_SECONDS_KEPT = 600
_MOST_KEPT = 100_000
_LOOKUPS_AT_ONCE = 32  # names that never answer must not hold up the others


def _networks(text: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(prefix) for prefix in text.split()]


# Judged by tables of our own, from the IANA registries of special-purpose addresses: what Python's `is_global` says
# depends on its version. IPv6 is closed but for the one block that IANA gives out as global unicast.
_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")
_PRIVATE = _networks("""
    10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 172.16.0.0/12 192.168.0.0/16 198.18.0.0/15
    ::1/128 fc00::/7
""")
_LINK_LOCAL = _networks("169.254.0.0/16 fe80::/10")
# "This network", protocol assignments, documentation, the retired 6to4 relay, multicast, reserved; in IPv6 also
# Teredo, benchmarks, ORCHID and drones' identifiers, then documentation twice. What wraps an IPv4 address is judged
# by that instead.
_UNROUTABLE = _networks("""
    0.0.0.0/8 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
    2001::/23 2001:db8::/32 3fff::/20
""")
# Where clouds hand out credentials, outside of link-local: AWS over IPv6, Alibaba, Oracle.
_METADATA = _networks("fd00:ec2::254 100.100.100.200 192.0.0.192")
# IPv6 prefixes whose last 32 bits are an IPv4 address: NAT64 (RFC 6052), IPv4-mapped and -compatible (RFC 4291).
_EMBEDDING = _networks("64:ff9b::/96 ::ffff:0:0/96 ::/96")


class ForbiddenAddress(Exception):
    """The address is not one that a crawl may talk to. The message says which and why."""


def why_forbidden(address: str, allow_private: bool = False) -> str | None:
    """Why `address` (an IP in its usual spelling) must not be connected to; None when it may.

    Only globally routable addresses may. `allow_private` opens private networks and loopback; link-local, metadata
    services, multicast, documentation, unspecified and reserved addresses stay closed.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if inner := _embedded_addresses(ip):
        reasons = [reason for a in inner if (reason := why_forbidden(str(a), allow_private))]
        return f"{reasons[0]} inside {ip}" if reasons else None
    if _is_in(ip, _LINK_LOCAL + _METADATA):
        return f"link-local or metadata address {ip}"
    if _is_in(ip, _PRIVATE):
        return None if allow_private else f"private address {ip}"
    if _is_in(ip, _UNROUTABLE) or (ip.version == 6 and ip not in _GLOBAL_IPV6):
        return f"unroutable address {ip}"
    return None


def _is_in(ip, networks) -> bool:
    return any(ip in network for network in networks)


def _embedded_addresses(ip) -> list[ipaddress.IPv4Address]:
    if ip.version == 4 or ip.is_loopback or ip.is_unspecified:
        return []
    found = [ip.sixtofour, *(ip.teredo or ())]
    found += [ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) for network in _EMBEDDING if ip in network]
    return [inner for inner in found if inner is not None]


def is_literal(host: str) -> bool:
    """Whether a URL's host is an IP address; short spellings (127.1, 0x7f000001) are names that resolve to one."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def guarded_socket(allow_private: bool, info) -> socket.socket:
    """Open a socket for `info`, one entry of getaddrinfo. Raises ForbiddenAddress before anything is sent."""
    family, kind, protocol, _, address = info
    if reason := why_forbidden(address[0], allow_private):
        raise ForbiddenAddress(reason)
    return socket.socket(family, kind, protocol)


class DnsCache:
    """Answers by name, lasting failures too, kept for ten minutes. One per process; it outlives the event loops."""

    def __init__(self):
        self._entries: dict[str, tuple[float, list | OSError]] = {}

    def get(self, host: str) -> list | OSError | None:
        expires, answer = self._entries.get(host, (0.0, None))
        return answer if expires > time.monotonic() else None

    def put(self, host: str, answer: list | OSError) -> None:
        if len(self._entries) >= _MOST_KEPT:
            for name in list(self._entries)[: _MOST_KEPT // 10]:  # the oldest, as dicts keep their order
                del self._entries[name]
        self._entries[host] = (time.monotonic() + _SECONDS_KEPT, answer)


class GuardedResolver(AbstractResolver):
    """aiohttp's resolver: cached, one lookup per name at a time, forbidden addresses left out.

    Raises OSError when the name has no address, ForbiddenAddress when it has none that is allowed.
    """

    def __init__(self, cache: DnsCache, allow_private: bool):
        self._cache, self._allow_private = cache, allow_private
        self._pool = ThreadPoolExecutor(_LOOKUPS_AT_ONCE, thread_name_prefix="dns")
        self._running: dict[str, asyncio.Task] = {}

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list[dict]:
        found = self._cache.get(host)
        if found is None:
            task = self._running.get(host) or self._start(host)
            found = await asyncio.shield(task)
        if isinstance(found, OSError):
            raise found
        reasons = {address: why_forbidden(address, self._allow_private) for _, address in found}
        allowed = [(kind, address) for kind, address in found if not reasons[address]]
        if not allowed:
            raise ForbiddenAddress(f"{host} is {min(filter(None, reasons.values()))}")
        return [_host_entry(host, address, port, kind) for kind, address in allowed]

    def _start(self, host: str) -> asyncio.Task:
        task = asyncio.ensure_future(self._lookup(host))
        self._running[host] = task
        task.add_done_callback(lambda _: self._running.pop(host, None))
        return task

    async def _lookup(self, host: str) -> list | OSError:
        look = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
        try:
            infos = await asyncio.get_running_loop().run_in_executor(self._pool, look)
            answer = sorted({(info[0], info[4][0]) for info in infos})  # IPv4 first: few hosts of old links do IPv6
        except OSError as error:
            answer = error
        except UnicodeError as error:  # a label that is empty or longer than 63 characters
            answer = OSError(socket.EAI_NONAME, f"not a host name: {error}")
        if getattr(answer, "errno", None) != socket.EAI_AGAIN:
            self._cache.put(host, answer)
        return answer

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _host_entry(host: str, address: str, port: int, family: int) -> dict:
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return {"hostname": host, "host": address, "port": port, "family": family, "proto": 0, "flags": flags}
