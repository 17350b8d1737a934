"""Manual pages as a reader sees them."""

import gzip
import time
from pathlib import Path

import pytest

from matura.core.errors import FormatError
from matura.data.formats import man, roff
from matura.data.formats.man import man_text
from tests.data.reading.made_inputs import read_all, reasons

PAGE = r"""'\" t
.\" A comment.
.TH GREET 1 "2024-01-01" "version 2" "User Commands"
.SH NAME
greet \- say hello \" to whom?
.SH SYNOPSIS
.B greet
[\fB\-\-loud\fR] \fIname\fR...
.SH "OPTIONS AND MORE"
.TP
.BR \-l ", " \-\-loud
Say it \(lqloudly\(rq,
again and again.
.IP \(bu 2
one
.IP "a long tag"
two
.PP
A paragraph\&.
.nf
  code  stays
.if t .ft CW
    as it is
.fi
.RS
shifted by
.UR http://example.org/
a link
.UE .
.RE
.SS
Next line heading
Last\c
 words\~here.
"""


def test_a_page() -> None:
    assert man_text(PAGE).split("\n") == [
        *("GREET(1)", "", "NAME", "", "greet - say hello", "", "SYNOPSIS", ""),
        *("greet [--loud] name...", "", "OPTIONS AND MORE", ""),
        *(
            "-l, --loud",
            "    Say it “loudly”, again and again.",
            "",
            "    • one",
            "",
            "a long tag",
            "    two",
            "",
        ),
        *(
            "A paragraph.",
            "  code  stays",
            "    as it is",
            "    shifted by a link <http://example.org/>.",
            "",
        ),
        *("Next line heading", "", "Last words here."),
    ]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"\(:a\(ss\['e]\(*b\[u2014]\N'65'\(xx", "äßéβ—A"),
        (r"a\\b \e \s+2big\s0 \h'3n'x\v'-.4m'y \n(.g \m[red]r\m[]", "a\\b \\ big xy r"),
        (r".B " "one word" " two", "one word two"),
        ('.BI "a ""b"" " c', 'a "b" c'),
        (".ds who World\nHello \\*(who\\*[who]\\*x.", "Hello oWorld."),
        (".ds wo World\nHello \\*(wo, \\*[wo]\\*x.", "Hello World, World."),
        (".tr \\(*W-\n.ds -- \\(*W-\n3\\*(--4", "3--4"),
        (".ie n A\n.el B\n.ie t C\n.el D\n.if !n E\n.if !t F", "A D F"),
        (".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\nit\\*(Aqs", "it's"),
        (".if t \\{\\\n.B gone\n.if n \\{ gone too \\}\n.\\}\nhere\n.if n \\{ there\n.\\}", "here there"),
        (".de XX\nhidden\n..\n.ig\nhidden\n..\n.XX\n.unknown text\nshown", "shown"),
        (
            ".TS\ntab(|) box;\nl l.\n_\na|b\n.B x\nT{\nlong\n.B cell\nT}|d\n.T&\nl.\ne\n.TE",
            "a  b\nlong cell  d\ne",
        ),
        (".EQ\nx sup 2\n.EN\nafter", "after"),
        (".SY cmd\n.OP \\-a file\n.YS\n.HP\nx", "cmd [-a file]\n\nx"),
        ("one\n\ntwo\n three\nfour", "one\n\ntwo\nthree four"),
        (".so man1/other.1", ""),
        (".TP", ""),
    ],
)
def test_requests_and_escapes(source: str, text: str) -> None:
    assert man_text(source).replace("\r", "") == text


def test_special_characters_are_pairs() -> None:
    assert len(roff._BY_NAME) % 2 == 0
    assert roff.character("nonsense") == ""
    assert roff.character("uD800") == ""


def test_another_macro_set_is_told() -> None:
    with pytest.raises(FormatError, match="unknown type: a manual page in mdoc"):
        man_text(".Dd today\n.Dt X 1\n.Os\n.Sh NAME\n.Nm x\n")


@pytest.mark.parametrize(
    "source",
    [
        "\\[" * 50_000,
        "\\h'" * 50_000,
        ".if n " * 50_000,
        ".if t \\{\n" * 20_000,
        ".de x\n" * 20_000,
        ".RS\n" * 20_000 + "deep",
        ".TS\n" * 20_000,
        '.B "' * 20_000,
        "\\" * 100_001,
    ],
)
def test_hostile_pages_end_soon(source: str) -> None:
    began = time.process_time()
    assert len(man_text(source)) < len(source) + 100
    assert time.process_time() - began < 2


def test_strings_may_not_expand_without_end() -> None:
    source = ".ds a " + "x" * 1999 + "\n" + "\\*a" * 2000
    with pytest.raises(FormatError, match="expands too much"):
        man_text(source)
    assert len(man_text(".ds a " + "x" * 9900 + "\n\\*a")) == man.MAX_STRING


def test_pages_are_known_by_their_folders(tmp_path: Path) -> None:
    for name in ("man1", "de/man8"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "man1" / "greet.1.gz").write_bytes(gzip.compress(PAGE.encode()))
    (tmp_path / "man1" / "hello.1").write_text(".so man1/greet.1")
    (tmp_path / "de" / "man8" / "gruss.8ssl").write_text(".TH G 8\n.SH NAME\ngr\\(:u\\(ss \\- gr\\(:u\\(sst")
    (tmp_path / "notes.1").write_text("no manual")
    documents, skipped = read_all(tmp_path)
    assert {one.source: one.text[:9] for one in documents} == {
        "de/man8/gruss.8ssl": "G(8)\n\nNAM",
        "man1/greet.1.gz": "GREET(1)\n",
    }
    assert "grüß - grüßt" in documents[0].text
    assert documents[0].meta["kind"] == "man"
    assert reasons(skipped) == {"man1/hello.1": "no text", "notes.1": "unknown type"}
    documents, _ = read_all(tmp_path / "man1")  # also when the folder itself is the source
    assert [one.source for one in documents] == ["greet.1.gz"]
