"""The page over HTTP: a scripted annotator, who is kept out, and that a model's words never become HTML."""

import asyncio
import html
import re
import socket
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from matura.align.ranking import guard, server
from matura.core.errors import MaturaError
from matura.core.preferences import read_rankings
from tests.align.ranking.made_rows import row, sitting

PORT, TOKEN = 8123, "a-token"
HOME = f"http://127.0.0.1:{PORT}"
OWN = {"origin": HOME, "sec-fetch-site": "same-origin"}


class Annotator:
    """Reads the page as a browser would, and sends its forms."""

    def __init__(self, one):
        self.client = TestClient(server.application(one, TOKEN, PORT), base_url=HOME, follow_redirects=True)
        self.page = self.client.get(f"/{TOKEN}/").text

    def press(self, keys, **headers):
        turn = re.search(r'name="turn" value="(\d+)"', self.page)[1]
        return self.send(f"turn={turn}&keys={keys.replace(' ', '+')}", **headers)

    def send(self, body, **headers):
        given = OWN | {"content-type": "application/x-www-form-urlencoded"} | headers
        answer = self.client.post(f"/{TOKEN}/press", content=body, headers=given)
        self.page = answer.text if "<main" in answer.text else self.page
        return answer

    def cards(self) -> Iterator[tuple[str, str]]:
        """(letter, text) of each answer."""
        for letter, rest in re.findall(r'data-letter="(\w)"(.*?)</li>', self.page, re.DOTALL):
            yield letter, html.unescape(re.search(r'<div class="text[^>]*>(.*?)</div>', rest, re.DOTALL)[1])


@pytest.fixture
def annotator(tmp_path):
    return Annotator(sitting(tmp_path))


def ranks(folder):
    return [{one.text: one.rank for one in made.answers} for made in read_rankings(folder / "rankings.jsonl")]


def test_a_scripted_annotator_ranks_by_a_rule_with_ties_skips_and_undo(tmp_path):
    rows = [row(n, "a" * (n + 2), "b", "ccc", "dd" * 9) for n in range(3)]
    one = Annotator(sitting(tmp_path, rows))
    by_length = sorted((len(text), letter) for letter, text in one.cards())
    for place, (_, letter) in enumerate(by_length, 1):
        one.press(f"{letter} {place}")
    assert len(re.findall(r'value="\w \d" aria-pressed="true"', one.page)) == 4
    one.press("enter")
    assert ranks(tmp_path) == [{"aa": 2, "b": 1, "ccc": 3, "dd" * 9: 4}]
    one.press("s")
    one.press("u")  # no, after all
    keys = {text: letter for letter, text in one.cards()}
    one.press(f"{keys['b']} 1 {keys['ccc']} 2 {keys['aaa']} t {keys['dd' * 9]} x enter")
    assert ranks(tmp_path)[1] == {"aaa": 2, "b": 1, "ccc": 2, "dd" * 9: None}
    answer = one.press("s")
    assert "All done" in answer.text
    assert "2 judged, 1 skipped" in " ".join(answer.text.split())
    assert len(ranks(tmp_path)) == 2


def test_the_page_works_without_its_script_by_redirect(annotator):
    answer = annotator.press("a 1")
    assert [one.status_code for one in answer.history] == [303]
    assert annotator.press("b 2", **{"x-matura-part": "1"}).history == []


def test_a_page_that_is_old_changes_nothing(annotator, tmp_path):
    old = annotator.page
    annotator.press("1 2 3 4 enter")
    annotator.page = old
    answer = annotator.press("4 3 2 1 enter")
    assert answer.status_code == 409
    assert "This page was old" in answer.text
    assert len(ranks(tmp_path)) == 1


def test_what_cannot_be_saved_is_said_and_nothing_moves(annotator, monkeypatch):
    annotator.press("1 2 3 4")

    def full(*_):
        raise MaturaError("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr("matura.align.ranking.journal.Journal.judge", full)
        answer = annotator.press("enter")
    assert answer.status_code == 507
    assert "Not saved. The disk is full." in answer.text
    assert "0 judged" in answer.text
    assert annotator.press("enter").text.count("1 judged") == 1


EVIL = "</div><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}\u202e\x1b[2J"


def test_a_models_words_are_never_html(tmp_path):
    evil = row(0, EVIL, '"><b onclick=x>')
    evil.messages[0]["content"] = EVIL
    page = Annotator(sitting(tmp_path, [evil], annotator=EVIL)).page
    assert page.count("<script") == 1
    assert "<img" not in page
    assert "<b " not in page
    assert "{{ 7 * 7 }}" in page
    assert "\u202e" not in page
    assert "&lt;U+202E&gt;&lt;U+001B&gt;[2J" in page


def test_headers_forbid_what_the_page_does_not_need(annotator):
    first, second = (annotator.client.get(f"/{TOKEN}/") for _ in range(2))
    policy = first.headers["content-security-policy"]
    nonce = re.search(r"script-src 'nonce-([\w-]{16,})'", policy)[1]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert set(re.findall(r'nonce="(.*?)"', first.text)) == {nonce}
    assert nonce not in second.text
    assert (first.headers["cache-control"], first.headers["x-frame-options"]) == ("no-store", "DENY")
    assert "set-cookie" not in first.headers
    assert not re.search(r'\s(style|on\w+)="', first.text)
    assert not re.search(r'(src|href)="(?!data:,")', first.text)


def test_the_answer_in_focus_is_told_to_a_screen_reader(annotator):
    current = re.compile(r'data-letter="(\w)"[^>]*aria-current="true" data-focus>')
    assert current.findall(annotator.page) == ["a"]
    annotator.press("1")
    assert current.findall(annotator.page) == ["b"]


@pytest.mark.parametrize("path", ["/", "/wrong/", "/a-toke/", "/a-tokens/", "/press", "//", "/favicon.ico"])
def test_without_the_token_there_is_nothing(annotator, path):
    for answer in (annotator.client.get(path), annotator.client.post(path, headers=OWN)):
        assert answer.status_code == 404
        assert TOKEN not in answer.text


def test_a_request_for_no_path_is_nowhere(tmp_path):
    """`GET *`, which some scanners send: a server hands it on as it is."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "*",
        "headers": [(b"host", f"127.0.0.1:{PORT}".encode())],
    }
    asyncio.run(server.application(sitting(tmp_path), TOKEN, PORT)(scope, None, send))
    assert sent[0]["status"] == 404


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:80", "127.0.0.1.evil.example"]
)
def test_another_name_for_this_machine_is_refused(annotator, host):
    answer = annotator.client.get(f"/{TOKEN}/", headers={"host": host})
    assert answer.status_code == 421
    assert "<main" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},  # another program on this machine
        {"origin": f"https://127.0.0.1:{PORT}"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_what_another_page_sends_is_refused(annotator, tmp_path, headers):
    assert annotator.press("1 2 3 4 enter", **headers).status_code == 403
    assert ranks(tmp_path) == []


def test_no_origin_at_all_is_refused(annotator):
    answer = annotator.client.post(f"/{TOKEN}/press", content="turn=0&keys=s")
    assert answer.status_code == 403


def test_a_large_body_is_refused_whether_it_says_so_or_not(annotator, tmp_path):
    body = "turn=0&keys=" + "s+" * guard.MAX_BODY
    assert annotator.send(body).status_code == 413
    pieces = (body[i : i + 1000].encode() for i in range(0, len(body), 1000))
    assert annotator.send(pieces).status_code == 413
    assert annotator.send("turn=0&keys=s", **{"content-length": "9" * 30}).status_code == 413
    assert "3 left" in annotator.client.get(f"/{TOKEN}/").text


@pytest.mark.parametrize(
    "body",
    [
        "",
        "turn=0",
        "turn=0&keys=",
        "turn=x&keys=s",
        "turn=-1&keys=s",
        "turn=0&keys=quit",
        "turn=0&keys=s&more=1",
        "turn=0&keys=" + "+".join("1" * 21),
        '{"turn": 0, "keys": "s"}',
        "turn=0&keys=%00",
        "turn=\u00b2&keys=s",
    ],
)
def test_what_is_no_form_of_the_page_is_refused(annotator, body):
    assert annotator.send(body.encode()).status_code == 422
    assert "3 left" in annotator.client.get(f"/{TOKEN}/").text


def test_other_methods_are_refused(annotator):
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD"):
        assert annotator.client.request(method, f"/{TOKEN}/").status_code == 405


def test_tokens_differ_and_the_socket_is_of_this_machine_alone():
    assert len({guard.new_token() for _ in range(10)}) == 10
    assert len(guard.new_token()) == 32
    with server.listen(0) as first:
        address, port = first.getsockname()
        assert address == "127.0.0.1"
        with pytest.raises(MaturaError, match="--port"):
            server.listen(port)


def test_a_free_port_can_be_taken_at_once():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    server.listen(port).close()
