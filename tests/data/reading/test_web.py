import base64
import contextlib
import gzip
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving import serving
from matura.core.errors import MaturaError
from matura.data import reading
from matura.data.reading import web

BODY = bytes(range(256)) * 40
PASSWORD = "p@ss/word"


class Handler(BaseHTTPRequestHandler):
    """Misbehaves as its paths say; `asked` are the ranges and logins it was sent."""

    asked: list[tuple[str, str | None, str | None]]
    busy = 0

    def do_GET(self) -> None:  # the name that http.server calls
        name = self.path.partition("?")[0].strip("/")
        self.asked.append(
            (f"{self.headers['Host']}/{name}", self.headers["Range"], self.headers["Authorization"])
        )
        start = int((self.headers["Range"] or "bytes=0-")[6:-1])
        port = self.server.server_address[1]
        match name:
            case "breaks.txt":
                told = {"ETag": '"1"', "Content-Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"}
                self.send(206 if start else 200, BODY[start:][:4000], length=len(BODY) - start, **told)
            case "changes.txt":  # never the same: it starts again each time and then comes whole
                type(self).busy += 1
                self.send(
                    200, BODY[: 4000 if self.busy < 3 else None], length=len(BODY), ETag=f'"{self.busy}"'
                )
            case "stuck.txt":
                self.send(200, b"", length=100)
            case "lies.txt":
                length = len(BODY) - 10
                self.send(
                    206 if start else 200,
                    BODY[:10],
                    length=length,
                    ETag='"1"',
                    **{"Content-Range": "bytes 5-9/9"},
                )
            case "busy.txt":
                type(self).busy += 1
                self.send(503 if self.busy < 3 else 200, BODY)
            case "endless.txt":
                self.send_response(200)
                self.end_headers()
                while True:
                    self.wfile.write(BODY)
            case "away":
                self.send(302, b"", Location=f"http://localhost:{port}/there.md")
            case "home":
                self.send(302, b"", Location=f"http://127.0.0.1:{port}/there.md")
            case "file":
                self.send(302, b"", Location="file:///etc/passwd")
            case "loop":
                self.send(302, b"", Location="/loop")
            case "page":
                self.send(200, BODY, **{"Content-Type": "text/html; charset=utf-8"})
            case "packed.txt":
                self.send(200, gzip.compress(BODY), **{"Content-Encoding": "gzip"})
            case "named":
                self.send(200, BODY, **{"Content-Disposition": 'attachment; filename="../../.a.csv"'})
            case _:
                self.send(200, BODY)

    def send(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body) if length is None else length), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # of the endless body
            super().handle()


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(web, "WAIT", 0.01)
    Handler.asked, Handler.busy = [], 0
    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}"


def fetch(address: str, folder: Path, max_bytes: int = 1 << 20) -> Path:
    return reading.fetch(address, folder, max_bytes=max_bytes)


def test_a_download_goes_on_where_it_broke_off(address: str, tmp_path: Path) -> None:
    assert fetch(f"{address}/breaks.txt", tmp_path).read_bytes() == BODY
    assert [range for _, range, _ in Handler.asked] == [None, "bytes=4000-", "bytes=8000-"]


def test_another_content_starts_again(address: str, tmp_path: Path) -> None:
    assert fetch(f"{address}/changes.txt", tmp_path).read_bytes() == BODY


def test_a_busy_server_is_asked_again(address: str, tmp_path: Path) -> None:
    assert fetch(f"{address}/busy.txt", tmp_path).read_bytes() == BODY


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("stuck.txt", "broke off after 0 of 100"),
        ("lies.txt", "another part of the file"),
        ("endless.txt", "at most"),
        ("file", "file://|not allowed"),
        ("loop", "infinite loop|redirect"),
    ],
)
def test_servers_that_misbehave(address: str, tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(MaturaError, match=re.compile(said, re.IGNORECASE)):
        fetch(f"{address}/{name}", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("page", "page.html"),
        ("packed.txt", "packed.txt.gz"),
        ("named", "a.csv"),
        ("away", "there.md"),
        ("a%20b.md", "a b.md"),
    ],
)
def test_what_it_is_called(address: str, tmp_path: Path, name: str, expected: str) -> None:
    assert fetch(f"{address}/{name}", tmp_path).name == expected


def test_a_password_goes_to_its_own_host_only(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PW", PASSWORD)
    login = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    with_login = address.replace("//", "//me:${PW}@")
    fetch(f"{with_login}/away", tmp_path)
    assert [(host.split(":")[0], sent) for host, _, sent in Handler.asked] == [
        ("127.0.0.1", login),
        ("localhost", None),
    ]
    Handler.asked.clear()
    fetch(f"{with_login}/home", tmp_path)
    assert [sent for _, _, sent in Handler.asked] == [login, login]
    with pytest.raises(MaturaError) as caught:
        fetch(f"{with_login}/stuck.txt", tmp_path)
    assert PASSWORD not in str(caught.value)
