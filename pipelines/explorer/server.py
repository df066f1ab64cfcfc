"""The page's server: one process on loopback, read-only, for whoever holds its token.

Every request must name this host and carry the token, in the address or in the cookie that the first answer sets;
anything else, an unknown folder, split or path included, is answered 403. The page loads nothing from elsewhere.
"""

import asyncio
import hmac
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
from aiohttp import web

from corpus.damage import Damaged
from corpus.rules import WrongRule
from pipelines.engine.inputs import UserError
from pipelines.explorer import answers
from pipelines.explorer.answers import Forbidden, Session
from pipelines.explorer.database import TooLarge, TooSlow

PAGE = Path(__file__).parent / "page"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HOSTS = ("127.0.0.1", "localhost")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}  # fmt: skip
_QUERIES: dict[str, Callable[[Session, dict], dict]] = {
    "/api/folders": answers.folders, "/api/folder": answers.folder, "/api/count": answers.count,
    "/api/edge": answers.edge, "/api/rows": answers.rows, "/api/plane": answers.plane, "/api/copy": answers.copy,
    "/api/pack": answers.pack,
}  # fmt: skip
_PICTURES = {"/picture": answers.picture, "/pack-picture": answers.pack_picture}


def application(session: Session, token: str) -> web.Application:
    """Return the server of a session; `token` opens it."""
    app = web.Application(middlewares=[_guard(token)], client_max_size=1024)
    pool = ThreadPoolExecutor(2)
    for path, answer in (_QUERIES | _PICTURES).items():
        app.router.add_get(path, _handler(session, answer, pool), allow_head=False)
    for file in PAGE.iterdir():
        app.router.add_get("/" if file.name == "index.html" else f"/{file.name}", _file(file), allow_head=False)

    async def close(_):
        session.close()
        pool.shutdown(wait=False, cancel_futures=True)

    app.on_cleanup.append(close)
    return app


def _guard(token: str):
    @web.middleware
    async def guard(request: web.Request, handler) -> web.StreamResponse:
        cookie = f"gristmill-{request.url.port}"
        given = request.query.get("token") or request.cookies.get(cookie, "")
        named = request.headers.get("Host", "").rpartition(":")[0] or request.headers.get("Host", "")
        if named not in _HOSTS or not hmac.compare_digest(given.encode(), token.encode()):
            response: web.StreamResponse = _refused("this page opens with the address that explore.py printed")
        else:
            response = await _answered(request, handler)
        response.headers.update(_HEADERS)
        if response.status < 400 and request.query.get("token"):
            response.set_cookie(cookie, token, httponly=True, samesite="Strict", path="/")
        return response

    return guard


async def _answered(request: web.Request, handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Forbidden as error:
        return _refused(str(error))
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
        return _refused("nothing is there")
    except (WrongRule, UserError, KeyError, ValueError) as error:
        status = 500 if isinstance(error, (Damaged, pa.ArrowException)) else 400
        return _json({"error": f"{error}"[:500]}, status)
    except (pa.ArrowException, OSError) as error:
        return _json({"error": f"a file cannot be read, pipelines/verify.py tells more: {error}"[:500]}, 500)
    except (TooSlow, TooLarge) as error:
        return _json({"error": f"{error}"[:500]}, 503)


def _refused(why: str) -> web.Response:
    return web.Response(status=403, text=why)


def _handler(session: Session, answer: Callable, pool: ThreadPoolExecutor):
    async def handle(request: web.Request) -> web.Response:
        asked = {name: request.query.getall(name) for name in request.query}
        found = await asyncio.get_running_loop().run_in_executor(pool, answer, session, asked)
        if isinstance(found, dict):
            return _json(found)
        if found is None:
            return web.Response(status=204)
        return web.Response(body=found, content_type="image/jpeg")

    return handle


def _json(data: dict, status: int = 200) -> web.Response:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    return web.Response(text=text, status=status, content_type="application/json")


def _file(file: Path):
    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=file.read_bytes(), content_type=_TYPES[file.suffix], charset="utf-8")

    return handle
