import gzip
import zlib

import pyarrow
import pytest

from matura.core.errors import FormatError
from matura.data.formats.http import content, known_charset, parse_answer

TEXT = b"a page of some length, " * 40


def sent(body: bytes, *headers: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 200 OK", *headers, "", "")).encode() + body


def chunked(body: bytes, size: int = 100) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x;x=y\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


CODED = {
    "gzip": gzip.compress(TEXT, mtime=0),
    "x-gzip": gzip.compress(TEXT, mtime=0),
    "deflate": zlib.compress(TEXT),
    "br": pyarrow.compress(TEXT, codec="brotli", asbytes=True),
    "zstd": pyarrow.compress(TEXT, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("coding", CODED)
def test_packings(coding: str) -> None:
    answer = parse_answer(
        sent(chunked(CODED[coding]), "Transfer-Encoding: chunked", f"Content-Encoding: {coding}")
    )
    assert content(answer, 10_000) == TEXT
    with pytest.raises(FormatError, match="too large"):
        content(answer, 100)


def test_what_servers_really_send() -> None:
    raw = zlib.compress(TEXT)[2:-4]
    assert content(parse_answer(sent(raw, "Content-Encoding: deflate")), 10_000) == TEXT
    assert content(parse_answer(sent(TEXT, "Content-Encoding: gzip")), 10_000) == TEXT
    assert content(parse_answer(sent(TEXT, "Transfer-Encoding: chunked")), 10_000) == TEXT
    assert content(parse_answer(b"HTTP/1.0 200 OK\nA: b\n\n" + TEXT), 10_000) == TEXT


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (sent(chunked(TEXT)[:150], "Transfer-Encoding: chunked"), "truncated"),
        (sent(CODED["gzip"][:-10], "Content-Encoding: gzip"), "truncated"),
        (sent(b"\x1f\x8b\x08" + b"\xff" * 50, "Content-Encoding: gzip"), "broken"),
        (sent(b"\xff" * 50, "Content-Encoding: br"), "broken"),
        (b"<html>no answer", "broken: no HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nHead: without end", "broken: no HTTP answer"),
    ],
    ids=["chunks", "gzip cut", "no gzip", "no brotli", "no head", "endless head"],
)
def test_damage_is_named(data: bytes, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        content(parse_answer(data), 10_000)


def test_charsets_that_exist() -> None:
    assert known_charset('text/html; Charset="UTF-8"') == "utf-8"
    assert known_charset("text/html; charset=foo-bar") is None
    assert known_charset("text/html") is None
