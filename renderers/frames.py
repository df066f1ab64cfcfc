"""Messages between a job and a process that handles hostile input: JSON and raw bytes, nothing that runs code."""

import json
import socket
import struct
import time
from collections.abc import Iterator

_HEAD = struct.Struct(">II")
MAX_JSON = 64 << 20
MAX_BLOBS = 256 << 20


class Closed(Exception):
    """The other side is gone."""


class Malformed(Exception):
    """What came is no message."""


class TooMuch(Exception):
    """The other side sends more than a message may hold."""


def send(to: socket.socket, message: dict, blobs: list[bytes] = (), deadline: float | None = None) -> None:
    """Send a JSON message and blobs. TimeoutError after `deadline` (time.monotonic), Closed when nobody listens."""
    raw = json.dumps(message | {"blobs": [len(blob) for blob in blobs]}, separators=(",", ":")).encode()
    try:
        for part in (_HEAD.pack(len(raw), sum(map(len, blobs))) + raw, *blobs):
            _wait_until(to, deadline)
            to.sendall(part)
    except (BrokenPipeError, ConnectionError):
        raise Closed from None


def receive(source: socket.socket, deadline: float | None = None) -> tuple[dict, list[bytes]]:
    """Receive a message and its blobs. Raises TimeoutError, Closed, TooMuch, Malformed."""
    num_json, num_blobs = _HEAD.unpack(_exactly(source, _HEAD.size, deadline))
    if num_json > MAX_JSON or num_blobs > MAX_BLOBS:
        raise TooMuch(f"{num_json} bytes of JSON, {num_blobs} of blobs")
    raw, data = bytes(_exactly(source, num_json, deadline)), _exactly(source, num_blobs, deadline)
    try:
        message = json.loads(raw)
        return message, list(_blobs(message.pop("blobs"), memoryview(data)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Malformed(f"no message: {error!r}"[:200]) from None


def _blobs(lengths: list[int], data: memoryview) -> Iterator[bytes]:
    at = 0
    for length in lengths:
        if not 0 <= length <= len(data) - at:
            raise ValueError(f"a blob of {length} bytes where {len(data) - at} are left")
        yield bytes(data[at : at + length])
        at += length


def _exactly(source: socket.socket, count: int, deadline: float | None) -> bytearray:
    data = bytearray(count)
    view, at = memoryview(data), 0
    while at < count:
        _wait_until(source, deadline)
        try:
            got = source.recv_into(view[at:])
        except ConnectionError:
            raise Closed from None
        if got == 0:
            raise Closed
        at += got
    return data


def _wait_until(side: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        return  # and no system call: a confined process is not allowed this one
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    side.settimeout(left)
