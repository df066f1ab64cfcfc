"""Patience with a store or a network that fails for a while: the one place that says what is tried again, how long.

The clients of object stores repeat a single request for some seconds. What outlives that ends a split's try; the split,
of which nothing is committed, is tried again from its start, for some minutes, after pauses that are drawn at random:
a thousand workers that a store refused at once do not come back at once.
"""

import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import fsspec

BUDGET = 300.0  # seconds from the first failure to the last try's begin
LONGEST_PAUSE = 60.0
_PASSING = {
    errno.EAGAIN, errno.EBUSY, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH,
    errno.EIO, errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH, errno.EPIPE, errno.EREMOTEIO, errno.ESTALE,
    errno.ETIMEDOUT,
}  # fmt: skip
_CODES = {"BadDigest", "IncompleteBody", "OperationAborted", "RequestTimeout", "SlowDown", "Throttling"}
_CLIENTS = {"aiohttp", "botocore", "aiobotocore", "requests", "urllib3"}
_SETUP = ("Credential", "Token", "Param", "Profile", "Partial", "NoRegion", "InvalidURL", "SSL", "Certificate")
Result = TypeVar("Result")

if not {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"} & os.environ.keys():
    # s3fs repeats what botocore repeated: a request that hangs would hold a worker for half an hour.
    fsspec.config.conf.setdefault("s3", {}).setdefault(
        "config_kwargs", {"retries": {"mode": "standard", "total_max_attempts": 3}, "max_pool_connections": 32}
    )


def passes(error: BaseException) -> bool:
    """Tell whether an error may be gone in a minute: a 5xx answer, SlowDown, a timeout, a reset, a connection lost."""
    if (told := _told_by_server(error)) is not None:
        status, code = told
        return status >= 500 or status == 429 or code in _CODES
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _PASSING
    kind = type(error)
    return kind.__module__.partition(".")[0] in _CLIENTS and not any(word in kind.__name__ for word in _SETUP)


def _told_by_server(error: BaseException) -> tuple[int, str] | None:
    """Return the status and the code of the S3 answer that an error, or what caused it, carries."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, dict) and "Error" in response:
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return status, response["Error"].get("Code", "")
    return None


def patiently(work: Callable[[], Result], *, budget: float | None = None) -> Result:
    """Return `work()`, called again after errors that may pass. Raises its last error when `budget` seconds are over.

    `budget` None: BUDGET.
    """
    pauses, until = _pauses(), None
    while True:
        try:
            return work()
        except Exception as error:
            until = until or time.monotonic() + (BUDGET if budget is None else budget)
            pause = next(pauses)
            if not passes(error) or time.monotonic() + pause > until:
                raise
        time.sleep(pause)


def _pauses() -> Iterator[float]:
    most = 1.0
    while True:
        yield random.uniform(0, most)
        most = min(2 * most, LONGEST_PAUSE)
