"""One page of the browser, seen through the protocol: an empty document with walls around it, filled by extract.js."""

import asyncio
import base64
from pathlib import Path

import cv2
import numpy as np

from renderers.chromium import BrowserLost
from renderers.page import BadDocument

# Installed into every page, in a world that the page's own scripts (were they on) could not see.
_EXTRACT = (Path(__file__).parent / "extract.js").read_text()
_ORIGIN = "http://page.invalid/"  # reserved: resolves nowhere
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; sandbox"


class Tab:
    """One page of its own context, seen through the protocol: pyppeteer's own `goto` waits for frames for ever."""

    def __init__(self, client):
        self.client, self.scale = client, 1.0
        self._world = None

    async def open(self, declaration: str, width: int, height: int) -> None:
        """Put an empty document with this doctype declaration in place; refuse every other request from now on."""
        send = self.client.send
        shell = f"{declaration}<html><head></head><body></body></html>"
        self.client.on("Fetch.requestPaused", lambda event: asyncio.ensure_future(self._answer(event, shell)))
        loaded = asyncio.get_running_loop().create_future()
        self.client.on("Page.loadEventFired", lambda _: None if loaded.done() else loaded.set_result(None))
        await asyncio.gather(
            send("Emulation.setScriptExecutionDisabled", {"value": True}),
            send("Fetch.enable", {"patterns": [{"urlPattern": "*"}]}),
            send("Network.setBypassServiceWorker", {"bypass": True}),
            self.resize(width, height),
        )
        navigation = await send("Page.navigate", {"url": _ORIGIN})
        await loaded
        # Nothing that the page itself could ask for is left to answer; whatever slips through finds the line dead.
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        await send("Network.emulateNetworkConditions", offline)
        world = await send("Page.createIsolatedWorld", {"frameId": navigation["frameId"], "worldName": "gristmill"})
        self._world = world["executionContextId"]
        await self._evaluate("Runtime.evaluate", {"expression": _EXTRACT, "contextId": self._world})

    async def _answer(self, event: dict, shell: str) -> None:
        request = {"requestId": event["requestId"]}
        if event["request"]["url"] == _ORIGIN and event["resourceType"] == "Document" and self._world is None:
            headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": _POLICY}
            answer = {
                "responseCode": 200, "body": base64.b64encode(shell.encode("utf-8", "replace")).decode(),
                "responseHeaders": [{"name": name, "value": value} for name, value in headers.items()],
            }  # fmt: skip
            await self.client.send("Fetch.fulfillRequest", request | answer)
        else:
            await self.client.send("Fetch.failRequest", request | {"errorReason": "BlockedByClient"})

    async def resize(self, width: int, height: int) -> None:
        """Set the viewport, in CSS pixels, each of which is `scale` pixels of the picture wide and high."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": self.scale, "mobile": False}
        await self.client.send("Emulation.setDeviceMetricsOverride", metrics)

    async def call(self, name: str, *arguments):
        """Call a function of extract.js. Raises BadDocument where the page breaks it."""
        return await self._evaluate("Runtime.callFunctionOn", {
            "functionDeclaration": f"(...all) => gristmill.{name}(...all)", "executionContextId": self._world,
            "arguments": [{"value": argument} for argument in arguments],
        })  # fmt: skip

    async def _evaluate(self, method: str, parameters: dict):
        reply = await self.client.send(method, parameters | {"returnByValue": True, "awaitPromise": True})
        if failure := reply.get("exceptionDetails"):
            text = failure.get("exception", {}).get("description") or failure.get("text", "")
            raise BadDocument("bad_page", text[:200])
        return reply["result"].get("value")

    async def screenshot(self, left: float, width: int, height: int) -> np.ndarray:
        """Return uint8 [height, width, 3], BGR. PNG, so that the one lossy step is the sample's own JPEG."""
        shot = await self.client.send("Page.captureScreenshot", {
            "format": "png", "optimizeForSpeed": True,
            "clip": {"x": left, "y": 0, "width": width, "height": height, "scale": 1},
        })  # fmt: skip
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(shot["data"]), np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            raise BrowserLost("crash", "its picture of the page is no PNG")
        return pixels


def doctype(html: str) -> str:
    """Return the page's doctype declaration, which decides between quirks and standards layout; "" when it has none.

    Scanned by hand: a regular expression for what may stand before it takes quadratic time on hostile pages.
    """
    at = 0
    while at < len(html):
        if html[at].isspace() or html[at] == "\ufeff":
            at += 1
        elif html.startswith("<!--", at):
            at = _after(html, "-->", at + 4)
        elif html.startswith("<?", at):
            at = _after(html, ">", at + 2)
        else:
            break
    declaration = html[at : _after(html, ">", at)] if html[at : at + 9].lower() == "<!doctype" else ""
    return declaration if "<" not in declaration[1:] and len(declaration) < 1000 else ""


def _after(text: str, end: str, start: int) -> int:
    found = text.find(end, start)
    return len(text) if found < 0 else found + len(end)
