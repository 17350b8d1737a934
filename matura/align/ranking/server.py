"""The ranking page: one person, one browser, this machine. See `guard` for who is kept out.

GET /TOKEN/ is the page, POST /TOKEN/press takes keys from its forms. The page is whole without its script, which only
adds keys and exchanges the part that changed.
"""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from matura.align.ranking.guard import Guard
from matura.align.ranking.page import view
from matura.align.ranking.session import KEYS
from matura.align.ranking.sitting import Sitting
from matura.core import page
from matura.core.errors import MaturaError

HERE = Path(__file__).parent
MAX_KEYS = 20
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def application(sitting: Sitting, token: str, port: int) -> Guard:
    """The page of a sitting as an ASGI application, behind its guard."""

    async def show(request: Request) -> Response:
        return _page(sitting)

    async def press(request: Request) -> Response:
        asked = _asked(await request.body())
        if asked is None:
            return PlainTextResponse("Expected turn=NUMBER&keys=KEY KEY ...\n", 422)
        turn, keys = asked
        shown = _part if request.headers.get("x-matura-part") else _page
        if turn != sitting.turn:
            return shown(
                sitting, "This page was old, so nothing was changed. Here is what is asked now.", 409
            )
        try:
            sitting.press(keys)
        except MaturaError as error:
            return shown(sitting, f"Not saved. {error}", 507)
        if shown is _part:
            return _part(sitting)
        return RedirectResponse(f"/{token}/", 303)

    routes = [Route(f"/{token}/", show), Route(f"/{token}/press", press, methods=["POST"])]
    return Guard(Starlette(routes=routes), token, port)


def listen(port: int) -> socket.socket:
    """A socket on the loopback address alone; port 0 takes a free one. Raises MaturaError when it is taken."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(("127.0.0.1", port))
        made.listen(64)  # so that the address works as soon as it is told
    except OSError as error:
        made.close()
        raise MaturaError(
            f"Port {port} on 127.0.0.1: {error.strerror}. Choose another --port, or none."
        ) from error
    return made


def serve(app: Guard, listening: socket.socket) -> None:
    """Serve until Ctrl-C."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,  # addresses have the token in them
        server_header=False,
        ws="none",
        lifespan="off",
        limit_concurrency=32,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=16_384,
    )
    uvicorn.Server(config).run(sockets=[listening])


def _page(sitting: Sitting, warning: str = "", status: int = 200) -> Response:
    nonce = secrets.token_urlsafe(16)
    script = (HERE / "page.js").read_text("utf-8")
    text = page.render(HERE / "page.html", nonce=nonce, script=script, view=view(sitting), warning=warning)
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
        "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(text, status, {"content-security-policy": policy, **HEADERS})


def _part(sitting: Sitting, warning: str = "", status: int = 200) -> Response:
    """What changes of the page, for its script, which takes it apart without running or styling any of it."""
    text = page.render(HERE / "page_part.html", view=view(sitting), warning=warning)
    return HTMLResponse(text, status, {"content-security-policy": "default-src 'none'; sandbox", **HEADERS})


def _asked(body: bytes) -> tuple[int, list[str]] | None:
    """(turn, keys) of a form; None for anything else."""
    try:
        form = dict(parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=4))
    except ValueError:
        return None
    turn, keys = form.get("turn", ""), form.get("keys", "").split()
    known = set(form) == {"turn", "keys"} and turn.isascii() and turn.isdigit() and len(turn) < 10
    if not known or not 0 < len(keys) <= MAX_KEYS or not KEYS.issuperset(keys):
        return None
    return int(turn), keys
