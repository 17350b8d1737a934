"""What stands between a page on this machine and everybody else on it: address, origin, size, headers.

The page is served at a path that begins with a random token, so neither other users of the machine nor other pages in
the browser can name it; there is no cookie that a browser would send by itself. The Host header is checked against DNS
rebinding, Origin and Sec-Fetch-Site against pages of other sites.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

MAX_BODY = 4096  # of a request; the longest that the page sends is below 200 bytes

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def new_token() -> str:
    """192 random bits as text that a path can hold."""
    return secrets.token_urlsafe(24)


class Guard:
    """An ASGI application that lets through to `app` only what the page itself asked for, with a body in memory."""

    def __init__(self, app: App, token: str, port: int) -> None:
        self.app = app
        self.token = token.encode()
        self.hosts = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        refused = self._refuse(scope, headers)
        if refused is not None:
            await _answer(send, *refused)
            return
        body = await _body(receive, headers)
        if body is None:
            await _answer(send, 413, f"A request may have {MAX_BODY} bytes.")
            return
        given = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def once() -> Message:
            return next(given, {"type": "http.disconnect"})

        await self.app(scope, once, send)

    def _refuse(self, scope: Scope, headers: Iterable[tuple[bytes, bytes]]) -> tuple[int, str] | None:
        hosts, origins, sites = (
            [value for key, value in headers if key == name]
            for name in (b"host", b"origin", b"sec-fetch-site")
        )
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return 421, "This address is not served here."
        if scope["method"] not in ("GET", "POST"):
            return 405, "Only GET and POST."
        token = scope["path"].removeprefix("/").partition("/")[0].encode("utf-8", "replace")
        if not hmac.compare_digest(token, self.token):
            return 404, "Nothing is here. The address in the terminal has a token; take it whole."
        own = b"http://" + hosts[0].lower()
        strange_site = any(site not in (b"same-origin", b"none") for site in sites)
        if scope["method"] == "POST" and (strange_site or origins != [own]):
            return 403, "This was sent by another page."
        return None


async def _body(receive: Receive, headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The whole body; None when it is, or claims to be, too large."""
    for key, value in headers:
        if key == b"content-length" and (not value.isdigit() or len(value) > 9 or int(value) > MAX_BODY):
            return None
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return b""
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY:
            return None
    return body


async def _answer(send: Send, status: int, text: str) -> None:
    """A refusal as plain text."""
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"x-content-type-options", b"nosniff"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode() + b"\n"})
