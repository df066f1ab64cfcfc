"""Messages between a job and a process that handles hostile input: JSON and raw bytes, nothing that runs code."""

import json
import socket
import struct
import time

_HEAD = struct.Struct(">II")
MAX_JSON = 64 << 20
MAX_BLOBS = 256 << 20


class Closed(Exception):
    """The other side is gone."""


class TooMuch(Exception):
    """The other side sends more than a message may hold."""


def send(to: socket.socket, message: dict, blobs: list[bytes] = (), deadline: float | None = None) -> None:
    """Send a JSON message and blobs. TimeoutError after `deadline` (time.monotonic), Closed when nobody listens."""
    raw = json.dumps(message | {"blobs": [len(blob) for blob in blobs]}, separators=(",", ":")).encode()
    try:
        for part in (_HEAD.pack(len(raw), sum(map(len, blobs))) + raw, *blobs):
            to.settimeout(_left(deadline))
            to.sendall(part)
    except (BrokenPipeError, ConnectionError):
        raise Closed from None


def receive(source: socket.socket, deadline: float | None = None) -> tuple[dict, list[bytes]]:
    """Receive a message and its blobs. Raises TimeoutError, Closed, TooMuch."""
    num_json, num_blobs = _HEAD.unpack(_exactly(source, _HEAD.size, deadline))
    if num_json > MAX_JSON or num_blobs > MAX_BLOBS:
        raise TooMuch(f"{num_json} bytes of JSON, {num_blobs} of blobs")
    message = json.loads(bytes(_exactly(source, num_json, deadline)))
    data, blobs, at = memoryview(_exactly(source, num_blobs, deadline)), [], 0
    for length in message.pop("blobs"):
        blobs.append(bytes(data[at : at + length]))
        at += length
    return message, blobs


def _exactly(source: socket.socket, count: int, deadline: float | None) -> bytearray:
    data = bytearray(count)
    view, at = memoryview(data), 0
    while at < count:
        source.settimeout(_left(deadline))
        try:
            got = source.recv_into(view[at:])
        except ConnectionError:
            raise Closed from None
        if got == 0:
            raise Closed
        at += got
    return data


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
