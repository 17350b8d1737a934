"""A teacher behind HTTP: what it is sent, and what happens when it misbehaves."""

import email.utils
import time
from typing import Any

import pytest

from matura.core.errors import MaturaError
from matura.core.settings import Draw
from matura.core.synthesis_settings import Endpoint
from matura.data.synthesis import teacher
from matura.data.synthesis.answers import Answer, Ask
from tests.data.synthesis.fake_endpoint import Reply, said, serving

KEY = "sk-very-secret-0123456789"
ASKS = [Ask(str(n), f"prompt {n}", "d", n) for n in range(6)]


def answers(url: str, asks: list[Ask] = ASKS[:1], **more: Any) -> dict[str, Answer]:
    settings = Endpoint(url=url, model="m", **{"backoff": 0.001, "retries": 2, "timeout": 5} | more)
    draw = Draw(max_new_tokens=9, temperature=0.5, top_p=0.9)
    return {ask.id: answer for ask, answer in teacher.remote(settings, draw, KEY)(asks)}


def test_it_sends_what_the_protocol_wants_and_reads_what_comes() -> None:
    bodies = []

    def answer(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        bodies.append(body)
        assert headers["Authorization"] == f"Bearer {KEY}"
        text = body["messages"][0]["content"]
        return said(f" re: {text}\n", "length" if text.endswith("3") else "stop")

    with serving(answer) as url:
        found = answers(url, ASKS)
    assert found == {str(n): Answer(f"re: prompt {n}", n != 3) for n in range(6)}
    assert sorted(body["seed"] for body in bodies) == list(range(6))
    assert bodies[0] | {"seed": 0, "messages": 0} == {
        "path": "/v1/chat/completions", "model": "m", "messages": 0, "max_tokens": 9, "temperature": 0.5,
        "top_p": 0.9, "seed": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [(500, {}, b"oops"), (503, {}, b""), (429, {"Retry-After": "0"}, b"{}"), (200, {}, b"<html>"), (200, {}, b"[]"),
     (200, {}, b"[" * 100_000), (200, {}, b'{"choices": [{"message": {"content": null}}]}'),
     (200, {"Content-Length": "90"}, b"cut")],
    ids=["500", "503", "429", "html", "list", "deep", "null", "cut short"],
)  # fmt: skip
def test_a_stumble_is_asked_again(bad: Reply) -> None:
    left = [bad, bad]
    with serving(lambda body, headers: left.pop() if left else said("fine")) as url:
        assert answers(url, timeout=0.5)["0"] == Answer("fine")
    assert not left


def test_it_waits_as_long_as_the_server_asks_for() -> None:
    times: list[float] = []

    def answer(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        times.append(time.monotonic())
        return (429, {"Retry-After": "1"}, b"slow down") if len(times) == 1 else said("fine")

    with serving(answer) as url:
        assert answers(url)["0"].text == "fine"
    assert 1 <= times[1] - times[0] < 3
    assert teacher._retry_after("7") == 7
    assert teacher._retry_after("9" * 30) == teacher.MAX_WAIT
    soon = teacher._retry_after(email.utils.formatdate(time.time() + 50, usegmt=True))
    assert soon == pytest.approx(50, abs=3)
    assert teacher._retry_after("tomorrow") is teacher._retry_after(None) is None


def test_what_stays_bad_is_a_failure_of_that_request_alone() -> None:
    replies = {
        "prompt 0": (200, {}, b"garbage"), "prompt 1": (200, {}, b"x" * 5000), "prompt 2": (400, {}, b"bad"),
        "prompt 3": said(" "),
    }  # fmt: skip
    with serving(lambda body, headers: replies.get(body["messages"][0]["content"], said("fine"))) as url:
        found = answers(url, ASKS, response_bytes=2000)
    assert [found[str(n)].failure for n in range(6)] == [
        teacher.GARBAGE, teacher.TOO_LONG, "request refused: HTTP 400", teacher.EMPTY, "", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "HTTP 401: check the key"), (404, "check endpoint.url and endpoint.model"), (302, "HTTP 302"),
     (500, "stays away after 3 attempts: HTTP 500")],
)  # fmt: skip
def test_what_no_other_request_would_change_ends_it_and_the_key_stays_unsaid(
    status: int, message: str
) -> None:
    reached: list[str] = []

    def elsewhere(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        reached.append(headers.get("Authorization", ""))
        return said("fine")

    content = f"key {KEY} is\x1b[1m bad".encode()
    with (
        serving(elsewhere) as other,
        serving(lambda body, headers: (status, {"Location": other}, content)) as url,
        pytest.raises(MaturaError, match=message) as caught,
    ):
        answers(url, ASKS)
    assert KEY not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert "*** is" in str(caught.value)
    assert not reached


def test_a_server_that_is_not_there_or_too_slow() -> None:
    with serving(lambda body, headers: said("fine")) as url:
        pass
    with pytest.raises(MaturaError, match="stays away after 3 attempts"):
        answers(url)

    def sleepy(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        time.sleep(0.3)
        return said("late")

    with serving(sleepy) as url, pytest.raises(MaturaError, match="run the same command again later"):
        answers(url, timeout=0.05, retries=1)
