"""A teacher behind an OpenAI-compatible `/chat/completions`: plain HTTP, bounded, patient with a busy server.

The key goes into the Authorization header and nowhere else: redirects are not followed, and it is taken out of every
message that quotes the server.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from matura.core.errors import MaturaError
from matura.core.settings import Draw
from matura.core.synthesis_settings import Endpoint
from matura.data.synthesis.answers import Answer, Ask, Teacher

MAX_WAIT = 300.0  # seconds; a server that asks for more is waited for so long
QUOTED = 200  # characters of an error's body
WRONG_SETUP = {401, 403, 404, 405}  # no retry and no other document makes these right
BUSY = {408, 409, 425, 429}
TOO_LONG, REFUSED, GARBAGE, EMPTY = (
    "response too large",
    "request refused",
    "response not understood",
    "empty",
)


class _Retry(Exception):  # noqa: N818
    """The request may work later. `garbage`: the server answered, only not in a way that can be understood."""

    def __init__(self, reason: str, wait: float | None = None, *, garbage: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.garbage = wait, garbage


class _Stopped(Exception):  # noqa: N818
    """Somebody else's error ended the waiting."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Another address would get the key."""


def remote(settings: Endpoint, draw: Draw, key: str) -> Teacher:
    """A teacher that asks the endpoint, `concurrency` requests at a time.

    Refusals of single requests and answers that stay too large or unintelligible come back as failures. Raises
    MaturaError when key, address or model are wrong, and when the server stays away after all retries.
    """
    opener = urllib.request.build_opener(_NoRedirect)
    stop = threading.Event()

    def one(ask: Ask) -> tuple[Ask, Answer] | None:
        """None when another request ended it all meanwhile: its error is the one to tell."""
        try:
            return None if stop.is_set() else (ask, _patient(lambda: attempt(ask), settings, stop))
        except _Stopped:
            return None
        except BaseException:
            stop.set()
            raise

    def attempt(ask: Ask) -> Answer:
        return _once(opener, settings, draw, key, ask)

    def teacher(asks: Sequence[Ask]) -> Iterable[tuple[Ask, Answer]]:
        stop.clear()
        pool = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="teacher")
        try:
            for future in as_completed([pool.submit(one, ask) for ask in asks]):
                if (found := future.result()) is not None:
                    yield found
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    return teacher


def _patient(attempt: Callable[[], Answer], settings: Endpoint, stop: threading.Event) -> Answer:
    """One attempt after another, with pauses that double, or as long as the server asks for."""
    for number in range(settings.retries + 1):
        try:
            return attempt()
        except _Retry as error:
            if number == settings.retries:
                if error.garbage:
                    return Answer(failure=GARBAGE)
                raise MaturaError(
                    f"the teacher at {settings.url} stays away after {number + 1} attempts: {error}. Answers got so "
                    "far are kept; run the same command again later."
                ) from None
            pause = settings.backoff * 2**number if error.wait is None else error.wait
            if stop.wait(min(pause, MAX_WAIT)):
                raise _Stopped from None
    raise AssertionError


def _once(
    opener: urllib.request.OpenerDirector, settings: Endpoint, draw: Draw, key: str, ask: Ask
) -> Answer:
    assert settings.url is not None
    body = {
        "model": settings.model,
        "messages": [{"role": "user", "content": ask.prompt}],
        "max_tokens": draw.max_new_tokens,
        "temperature": draw.temperature,
        "top_p": draw.top_p,
        "seed": ask.seed,
    }
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "matura"}
    request = urllib.request.Request(
        f"{settings.url.rstrip('/')}/chat/completions",
        json.dumps(body).encode("ascii"),
        headers | ({"Authorization": f"Bearer {key}"} if key else {}),
    )
    end = time.monotonic() + settings.timeout
    try:
        with opener.open(request, timeout=settings.timeout) as response:
            content = _read(response, settings.response_bytes, end)
    except urllib.error.HTTPError as error:
        with error:
            return _refusal(error, settings, key, end)
    except (OSError, http.client.HTTPException) as error:
        raise _Retry(_without(key, str(error) or type(error).__name__)) from None
    return Answer(failure=TOO_LONG) if content is None else _parsed(content)


def _read(response: Any, limit: int, end: float) -> bytes | None:
    """The body; None when it is larger than `limit`. A server that drips bytes is left when the time is over."""
    content = b""
    while piece := response.read1(1 << 16):
        content += piece
        if len(content) > limit:
            return None
        if time.monotonic() > end:
            raise TimeoutError("the answer took too long")
    return content


def _refusal(error: urllib.error.HTTPError, settings: Endpoint, key: str, end: float) -> Answer:
    quoted = b""
    with contextlib.suppress(OSError, http.client.HTTPException):
        quoted = error.read(4 * QUOTED)  # enough for QUOTED characters; the key may be cut at the end only
    said = _without(key, quoted.decode("utf-8", "replace"))[:QUOTED]
    said = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    if error.code in BUSY or error.code >= 500:
        raise _Retry(f"HTTP {error.code} {said}".strip(), _retry_after(error.headers.get("Retry-After")))
    if error.code in WRONG_SETUP or error.code < 400:
        hint = {401: "check the key", 403: "check the key"}.get(
            error.code, "check endpoint.url and endpoint.model"
        )
        raise MaturaError(f"the teacher at {settings.url} answers HTTP {error.code}: {hint}. {said}".strip())
    return Answer(failure=f"{REFUSED}: HTTP {error.code}")


def _retry_after(text: str | None) -> float | None:
    """Seconds to wait: the header holds either them or a date (RFC 9110, section 10.2.3)."""
    if text is None:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return min(float(text), MAX_WAIT)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return None


def _parsed(content: bytes) -> Answer:
    try:
        choice = json.loads(content)["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise _Retry("a response that is no chat completion", garbage=True) from None
    if not isinstance(text, str):
        raise _Retry("a response without text", garbage=True)
    text = text.encode("utf-8", "replace").decode().strip()
    return Answer(text, reason != "length", "" if text else EMPTY)


def _without(key: str, text: str) -> str:
    return text.replace(key, "***") if key else text
