import bz2
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from matura.core.corpus_settings import Limits
from matura.data.reading.wikitext import Names, clean
from tests.data.reading.made_inputs import PROSE, read_all, reasons

HEAD = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="de"><siteinfo>'
    "<base>https://de.wikipedia.org/wiki/Wikipedia:Hauptseite</base><namespaces>"
    '<namespace key="6" case="first-letter">Datei</namespace>'
    '<namespace key="14" case="first-letter">Kategorie</namespace></namespaces></siteinfo>\n'
)


def page(number: int, text: str, title: str | None = None, extra: str = "", ns: int = 0) -> str:
    return (
        f"<page><title>{title or f'Seite {number}'}</title><ns>{ns}</ns><id>{number}</id>{extra}<revision>"
        f"<id>1</id><model>wikitext</model><text>{escape(text)}</text></revision></page>\n"
    )


def dump(count: int = 40) -> list[str]:
    return [page(i, f"'''Seite {i}''' {PROSE}" * (1 + i % 3)) for i in range(count)]


def test_articles_with_what_is_known_of_them(tmp_path: Path) -> None:
    pages = [
        page(
            1,
            "'''A &amp; B''' ist {{Lang|fr|un mot}}.[[Datei:X.jpg|mini|Bild]]\n[[Kategorie:Y]]",
            "A & B".replace("&", "&amp;"),
        ),
        page(2, "#REDIRECT [[A]]", extra='<redirect title="A"/>'),
        page(3, "#WEITERLEITUNG [[A]]"),
        page(4, PROSE, "Diskussion:A", ns=1),
        page(5, "{{nur eine Vorlage}}"),
    ]
    (tmp_path / "dewiki-pages-articles.xml").write_text(HEAD + "".join(pages) + "</mediawiki>")
    ((document,), skipped) = read_all(tmp_path)
    assert document.text == "A & B ist un mot."
    assert document.meta == {
        "origin": "here",
        "kind": "wikipedia",
        "title": "A & B",
        "language": "de",
        "url": "https://de.wikipedia.org/wiki/A_&_B",
    }
    assert list(reasons(skipped).values()) == ["redirect", "redirect", "not an article", "no text"]


@pytest.mark.parametrize("form", ["plain", "streams", "one stream", "cut anywhere"])
def test_the_cut_changes_nothing(tmp_path: Path, form: str) -> None:
    pages = dump()
    whole = (HEAD + "".join(pages) + "</mediawiki>").encode()
    groups = ["".join(pages[i : i + 5]) for i in range(0, 40, 5)]
    data = {
        "plain": whole,
        "streams": b"".join(bz2.compress(part.encode()) for part in (HEAD, *groups, "</mediawiki>")),
        "one stream": bz2.compress(whole),
        "cut anywhere": b"".join(bz2.compress(whole[i : i + 997]) for i in range(0, len(whole), 997)),
    }[form]
    name = "dewiki.xml" if form == "plain" else "dewiki-multistream.xml.bz2"
    (tmp_path / name).write_bytes(data)
    documents, skipped = read_all(tmp_path)
    assert [document.meta["title"] for document in documents] == [f"Seite {i}" for i in range(40)]
    assert not skipped
    for part_bytes in (300, len(data) // 2, len(data)):
        assert read_all(tmp_path, part_bytes=part_bytes) == (documents, [])


def test_a_cut_dump_gives_what_came_before(tmp_path: Path) -> None:
    whole = (HEAD + "".join(dump())).encode()
    streams = b"".join(bz2.compress(whole[i : i + 2000]) for i in range(0, len(whole), 2000))
    (tmp_path / "a-wiki.xml.bz2").write_bytes(streams[: len(streams) // 2])
    (tmp_path / "b-wiki.xml").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c-wiki.xml.bz2").write_bytes(b"nothing of the kind")
    documents, skipped = read_all(tmp_path)
    assert {document.source.partition("#")[0] for document in documents} == {"a-wiki.xml.bz2", "b-wiki.xml"}
    assert all(document.text.startswith("Seite") for document in documents)
    assert reasons(skipped) == {
        "a-wiki.xml.bz2": "truncated",
        "b-wiki.xml": "truncated",
        "c-wiki.xml.bz2": "broken",
    }


def test_a_page_that_is_too_large_costs_only_itself(tmp_path: Path) -> None:
    pages = [page(1, PROSE), page(2, "x" * 3_000_000), page(3, PROSE)]
    (tmp_path / "wiki.xml").write_text(HEAD + "".join(pages))
    documents, skipped = read_all(tmp_path, limits=Limits(file_bytes=1 << 20))
    assert [document.meta["title"] for document in documents] == ["Seite 1", "Seite 3"]
    assert [item.reason for item in skipped] == ["too large"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("'''Bold''' and ''italic''", "Bold and italic"),
        (
            "[[Paris]], [[Paris (Texas)|Paris]], [[a_b#c]], [[Rome|the '''city''']]s",
            "Paris, Paris, a b, the citys",
        ),
        ("a [[File:X.jpg|thumb|A [[link]] in a caption]] b", "a b"),
        ("a [[:Category:X]] b [[Category:Y]][[de:Titel]]", "a Category:X b"),
        ("see [https://x.org/a?b the page] and [https://x.org]", "see the page and"),
        ("a {{t|b={{u|c}}|d}} e", "a e"),
        ('x<ref name=a>text {{cite|title=[[Foo]]}}</ref>y<ref name="a/b" />z', "xyz"),
        ("x<ref>never ends\n\nNext one.", "x\n\nNext one."),
        ("a\n{| class=x\n! head\n|-\n| cell\n{|\n| nested\n|}\n| more\n|}\nb", "a\n\nb"),
        ("a\n{| class=x\n| cell without end\n== Next ==\nb", "a\n\n## Next\n\nb"),
        ("a\n| left | over\n|-\n! cells\nb", "a\nb"),
        ("a {{unclosed b", "a unclosed b"),
        ("a [[unclosed b {{t}} c", "a unclosed b c"),
        ("a }} b ]] c", "a b c"),
        (
            "== One ==\n{{t}}\n== Two ==\n=== Sub ===\ntext\n== References ==\n<references/>",
            "## Two\n\n### Sub\n\ntext",
        ),
        ("* one\n** two\n# three\n: four", "- one\n  - two\n- three\nfour"),
        ("<nowiki>[[not a link]] '''</nowiki>", "[[not a link]] '''"),
        ("<math>\\frac{{a}}{b}</math> &lt;ref&gt; &nbsp;&amp;", "\\frac{{a}}{b} <ref> &"),
        ("a<!-- b -->c __NOTOC__<br />d", "ac\nd"),
        ("Mozart ({{IPA|x}}; {{audio}}) was", "Mozart was"),
        ("{{lang|fr|bonjour}}, {{convert|5|km|mi}}", "bonjour, 5 km"),
        ("<gallery>\nA.jpg|x\n</gallery><span style='x'>kept</span>", "kept"),
    ],
)
def test_wikitext(source: str, expected: str) -> None:
    assert clean(source) == expected


def test_names_of_namespaces_are_those_of_the_wiki() -> None:
    assert clean("a [[Datei:X.jpg|mini|b]]", Names.of(["Datei"])) == "a"


def test_hostile_brackets_take_linear_time() -> None:
    for pattern in ("{{", "[[", "[[a|", "{|\n", "<ref>", "<!--", "== ", "'" * 9, "<nowiki>", "(("):
        assert len(clean(pattern * 20_000)) < 400_000


def test_a_damaged_stream_costs_itself(tmp_path: Path) -> None:
    streams = [bz2.compress(part.encode()) for part in (HEAD, *dump(6))]
    hurt = bytearray(streams[3])
    hurt[30:40] = bytes(10)
    bomb = bz2.compress(bytes(8 << 20))
    (tmp_path / "wiki.xml.bz2").write_bytes(
        b"".join((*streams[:3], bytes(hurt), *streams[4:6], bomb, streams[6]))
    )
    documents, skipped = read_all(tmp_path)
    assert [document.meta["title"] for document in documents] == [f"Seite {i}" for i in (0, 1, 3, 4, 5)]
    assert [item.reason for item in skipped] == ["broken", "expands too much"]


def test_entities_of_a_page_are_never_expanded(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE m [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
    own = page(1, PROSE).replace("<page>", f"<page>{bomb}")
    used = page(2, "x").replace("x</text>", "&b;</text>")
    (tmp_path / "wiki.xml").write_text(f'<?xml version="1.0"?>{bomb}' + HEAD + own + used + page(3, PROSE))
    documents, skipped = read_all(tmp_path)
    assert [document.meta["title"] for document in documents] == ["Seite 3"]
    assert [item.reason for item in skipped] == ["broken", "broken"]


def test_runs_of_blanks_take_linear_time() -> None:
    for pattern in (" \t", "<br" + " " * 50, "( "):
        assert len(clean(pattern * 100_000 + "x")) < 500_000
