"""Chromium through pyppeteer, offline and leashed.

pyppeteer talks to the browser over a pipe instead of a TCP port: the browser can then live in a network namespace
without any interface, and no other process of the machine can reach its debugging port. `renderers.sentry` stands
between, so that no process survives the job.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pyppeteer.browser import Browser as _Browser
from pyppeteer.connection import Connection
from pyppeteer.errors import NetworkError, PageError
from websockets.exceptions import ConnectionClosedError

from corpus.bugs import raise_ours
from renderers.browsers import NoBrowser, find_browser
from renderers.confine import NOBODY
from renderers.sentry import OUT_OF_MEMORY

_ROOT = Path(__file__).resolve().parent.parent
_PROFILE = "gristmill-chromium-"  # then the job's process id
_LONGEST = 26  # of the folder for profiles: the path of a socket far below it has room for 107 characters
_START_ATTEMPTS, _START_SECONDS = 2, 60
_FLAGS = (
    "--headless", "--remote-debugging-pipe", "--no-first-run", "--no-default-browser-check", "--mute-audio",
    "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions", "--disable-breakpad", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-logging",
    "--disable-domain-reliability", "--disable-client-side-phishing-detection", "--disable-remote-fonts",
    # The last five cost half of a page's time: popups of the browser's own window, a process held in store for each
    # context, and one more for a page that its policy sandboxes, which has a process of its own already.
    "--disable-features=Translate,MediaRouter,OptimizationHints,DialMediaRouteProvider,CalculateNativeWinOcclusion,"
    "WebUIOmniboxPopup,WebUIOmniboxAimPopup,WebUIOmniboxFullPopup,SpareRendererForSitePerProcess,IsolateSandboxedIframes",
    # One picture for one page: no scroll bars, no device scale, no subpixel colours, no hinting to a pixel grid.
    "--hide-scrollbars", "--force-device-scale-factor=1", "--disable-lcd-text", "--font-render-hinting=none",
    "--force-color-profile=srgb",
    # The layers against the network, under the interception of every request: names do not resolve, and whatever
    # needs none goes to a proxy that does not exist, loopback included.
    "--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=http://127.0.0.1:9", "--proxy-bypass-list=<-loopback>",
)  # fmt: skip

logging.getLogger("pyppeteer").setLevel(logging.CRITICAL)  # it logs every page it loses; the ledger does


class BrowserLost(Exception):
    """The browser is gone or hangs. `kind` is the ledger's error kind."""

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.kind = kind


# What pyppeteer raises when the browser or a page vanishes under it.
LOST = (NetworkError, PageError, ConnectionError, asyncio.InvalidStateError, AttributeError, KeyError, TypeError)


class _Pipe:
    """The two ends of Chromium's debugging pipe, with the face of the WebSocket that pyppeteer expects."""

    def __init__(self, reads: int, writes: int):
        self._reads, self._writes = os.fdopen(reads, "rb", 0), os.fdopen(writes, "wb", 0)

    async def __aenter__(self) -> "_Pipe":
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(limit=1 << 30, loop=loop)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self._reader, loop=loop), self._reads)
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, self._writes)
        self._writer = asyncio.StreamWriter(transport, protocol, None, loop)
        return self

    async def __aexit__(self, *error) -> None:
        await self.close()

    async def recv(self) -> str:
        try:
            return (await self._reader.readuntil(b"\0"))[:-1].decode()
        except (asyncio.IncompleteReadError, ConnectionError):
            raise ConnectionClosedError(None, None) from None

    async def send(self, message: str) -> None:
        try:
            self._writer.write(message.encode() + b"\0")
            await self._writer.drain()
        except ConnectionError:
            raise ConnectionClosedError(None, None) from None

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            self._reads.close()


class _PipeConnection(Connection):
    """pyppeteer's connection, over a pipe. Its constructor opens a WebSocket, so the fields are set here."""

    def __init__(self, pipe: _Pipe, loop: asyncio.AbstractEventLoop):
        super(Connection, self).__init__()
        self._url, self._lastId, self._callbacks, self._delay = "pipe:", 0, {}, 0
        self._loop, self._sessions, self._connected, self._closeCallback = loop, {}, False, None
        self._ws = pipe
        self._recv_fut = loop.create_task(self._recv_loop())


class Chromium:
    """One browser. `start` and `stop` as often as needed; `browser` is pyppeteer's while it runs.

    `memory` caps what the tree of its processes keeps resident, in bytes.
    """

    def __init__(self, executable: str | None = None, memory: int = 3 << 30):
        self.executable, self._memory = find_browser(executable), memory
        self._sentry: subprocess.Popen | None = None
        self.browser: _Browser | None = None

    @property
    def running(self) -> bool:
        """Whether the browser has been started and not ended by itself."""
        return self._sentry is not None and self._sentry.poll() is None

    async def start(self) -> None:
        """Start the browser and connect to it. Raises NoBrowser when it does not come up."""
        sweep_profiles()
        for _ in range(_START_ATTEMPTS):
            if (why := await self._try_start()) is None:
                return
        raise NoBrowser(
            f"{self.executable} did not start ({why}). Does `{self.executable} --headless --dump-dom about:blank` work "
            "here, and are there memory and room for temporary files? Then run the same command again."
        )

    async def _try_start(self) -> str | None:
        profile = tempfile.mkdtemp(prefix=f"{_PROFILE}{os.getpid()}-", dir=_place())
        to_browser, from_browser = os.pipe(), os.pipe()
        command = [self.executable, *_FLAGS, f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            os.chown(profile, NOBODY, NOBODY)  # as whom the sentry runs the browser
        self._sentry = subprocess.Popen(
            [sys.executable, "-m", "renderers.sentry", profile, str(self._memory), str(to_browser[0]),
             str(from_browser[1]), *command, "about:blank"],
            pass_fds=(to_browser[0], from_browser[1]), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd=_ROOT, env=_environment(profile),
        )  # fmt: skip
        os.close(to_browser[0]), os.close(from_browser[1])
        connection = _PipeConnection(_Pipe(from_browser[0], to_browser[1]), asyncio.get_running_loop())
        try:
            creation = _Browser.create(connection, [], False, None, None, connection.dispose)
            self.browser = await asyncio.wait_for(creation, _START_SECONDS)
        except (TimeoutError, *LOST) as error:
            raise_ours(error)
            return await self.stop() or repr(error)
        return None

    async def stop(self) -> str:
        """End every process of the browser; return why it had ended, if it had: "memory", "crash" or ""."""
        if self._sentry is None:
            return ""
        ended = self._sentry.poll()
        if self.browser is not None:
            with contextlib.suppress(Exception):
                await self.browser._connection.dispose()
        self._sentry.stdin.close()
        status = self._sentry.wait()  # no thread: this runs at the interpreter's end as well
        self._sentry = self.browser = None
        if status == OUT_OF_MEMORY:
            return "memory"
        return "crash" if ended is not None else ""


def _place() -> str:
    """The folder for profiles: that for temporary files, unless its path is too long for a socket in it."""
    return tempfile.gettempdir() if len(tempfile.gettempdir()) <= _LONGEST else "/tmp"


def sweep_profiles() -> None:
    """Remove profiles whose job is gone: where a job's whole process tree is killed, its sentries die with it."""
    for folder in Path(_place()).glob(f"{_PROFILE}*-*"):
        owner = folder.name.removeprefix(_PROFILE).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _environment(profile: str) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "LD_LIBRARY_PATH") if key in os.environ}
    return kept | {"HOME": profile, "TMPDIR": profile, "PYTHONPATH": str(_ROOT), "TZ": "UTC"}
