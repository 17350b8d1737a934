from io import BytesIO

import pypdf
import pytest

from matura.core.errors import FormatError
from matura.data import extraction
from matura.data.extraction import extract, join_hyphens, normalise


def text_of(source: str, kind: str) -> str:
    return extract(source.encode(), kind).text


def make_pdf(pages: list[str]) -> bytes:
    """A PDF with one line of text a page, written by hand; "" makes a page whose contents are damaged."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    kids = []
    for text in pages:
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else "BT ((( Tj <<"
        kids.append(len(objects) + 1)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects) + 2} 0 R "
            "/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects[1] = f"<< /Type /Pages /Count {len(kids)} /Kids [{' '.join(f'{k} 0 R' for k in kids)}] >>"
    out = "%PDF-1.4\n"
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n"
    return out.encode("latin-1")


class TestNormalise:
    def test_composes_and_drops_what_is_no_text(self) -> None:
        assert normalise("e\u0301 a\u00adb\ufeffc\x07d\x1b[0m\u200d") == "\u00e9 abcd[0m\u200d"

    def test_every_kind_of_line_end_is_one(self) -> None:
        assert normalise("a\r\nb\rc\u2028d\x0ce") == "a\nb\nc\nd\ne"

    def test_trailing_spaces_and_many_empty_lines_go(self) -> None:
        assert normalise("\n\na  \t\n\n\n  \n\n\nb\n\n\nc\n") == "a\n\n\nb\n\n\nc"

    def test_indentation_and_tabs_stay(self) -> None:
        assert normalise("if x:\n\ty\n    z") == "if x:\n\ty\n    z"


class TestMarkdown:
    def test_stays_as_it_is(self) -> None:
        source = "# Title\n\n* a `b` [link](c.md)\n\n---\n\n| x | y |"
        assert text_of(source, "md") == source

    @pytest.mark.parametrize("head", ["---\ntitle: A\ntags: [b]\n---\n", "+++\ntitle = 'A'\n+++\n"])
    def test_front_matter_goes(self, head: str) -> None:
        assert text_of(head + "\n# Title", "md") == "# Title"
        assert text_of(head.replace("\n", "\r\n") + "\n# Title", "md") == "# Title"

    def test_a_rule_at_the_top_is_no_front_matter(self) -> None:
        assert text_of("---\nWords between rules\n---\nmore", "md") == "---\nWords between rules\n---\nmore"


class TestRst:
    def test_roles_and_references_become_their_text(self) -> None:
        source = (
            "See :ref:`the guide <guide>`, :class:`~package.module.Name`, :meth:`!run`, `site <https://x.y>`_,\n"
            "`Other page`_, ``a literal`` and |version|; 10 | 20 stays, and so does a:b."
        )
        assert text_of(source, "rst") == (
            "See the guide, Name, run, site,\n"
            "Other page, `a literal` and version; 10 | 20 stays, and so does a:b."
        )

    def test_code_stays_and_its_options_go(self) -> None:
        source = "Run::\n\n    make all\n\n.. code-block:: python\n   :linenos:\n\n   print(1)\n\nAfter."
        assert text_of(source, "rst") == "Run:\n\n    make all\n\n   print(1)\n\nAfter."

    def test_the_mark_before_code_shows_as_a_reader_sees_it(self) -> None:
        assert text_of("Run::\n\n  a\n\nThus. ::  \n\n  b\n\n::\n\n  c::d", "rst") == (
            "Run:\n\n  a\n\nThus.\n\n  b\n\n\n\n  c::d".replace("\n\n\n\n", "\n\n\n")
        )

    def test_admonitions_keep_their_words(self) -> None:
        source = (
            ".. note:: Mind this.\n   And this.\n\n.. versionadded:: 1.2\n\n.. deprecated:: 2 Use b.\n\nEnd."
        )
        text = text_of(source, "rst")
        assert "Note: Mind this.\n   And this." in text
        assert "New in 1.2." in text
        assert "Deprecated since 2. Use b." in text

    def test_what_no_reader_sees_goes(self) -> None:
        source = (
            ".. _target:\n\nTitle\n=====\n\n.. A comment\n   on two lines\n\n.. toctree::\n"
            "   :maxdepth: 2\n\n   one\n   two\n\n.. image:: a.png\n   :alt: picture\n\n"
            ".. |x| image:: y.png\n\nText.\n\n..\n   hidden\n\n... three\n\n..\n\n   quoted"
        )
        assert text_of(source, "rst").split() == ["Title", "=====", "Text.", "...", "three", "quoted"]

    def test_an_unknown_directive_keeps_its_body(self) -> None:
        assert text_of(".. custom:: Head\n   :opt: 1\n\n   Body.", "rst") == "Head\n\n   Body."

    @pytest.mark.timeout(20)
    @pytest.mark.parametrize(
        "piece", ["`", "``", "` ", "`<", ":a:`", "|a", ".. a::\n", "..\n", "` " + " " * 99, "`_ "]
    )
    def test_hostile_text_takes_no_time(self, piece: str) -> None:
        assert isinstance(text_of(piece * (200_000 // len(piece)), "rst"), str)
        assert isinstance(text_of("`" + " " * 200_000, "rst"), str)


class TestHtml:
    PARAGRAPHS = "".join(
        f"<p>Paragraph {i} explains the matter in one whole sentence of prose.</p>" for i in range(8)
    )

    def test_the_main_content_is_taken(self) -> None:
        page = (
            "<html><head><title>T</title><script>var evil = 1</script></head><body><nav><a href='/'>Home</a>"
            f"<a href='/b'>Blog</a></nav><main><h1>Heading</h1>{self.PARAGRAPHS}"
            "<ul><li>An item that says something.</li></ul></main>"
            "<footer>Copyright</footer></body></html>"
        )
        text = text_of(page, "html")
        assert "Paragraph 7 explains" in text
        assert "An item that" in text
        assert "evil" not in text
        assert "Home" not in text

    def test_without_a_main_element_menus_go_and_lists_stay(self) -> None:
        page = (
            "<body><header>Site</header><nav><ul><li>Home</li></ul></nav><h1>Title</h1>"
            f"{self.PARAGRAPHS}<ul><li>bullet</li></ul><pre>code\n  more</pre><footer>(c)</footer></body>"
        )
        text = text_of(page, "html")
        assert text.startswith("Title")
        assert "bullet" in text
        assert text.endswith("code\n  more")
        assert "Home" not in text

    def test_several_articles_are_all_kept(self) -> None:
        assert text_of("<body><article>One.</article><article>Two.</article></body>", "html").split() == [
            "One.",
            "Two.",
        ]

    def test_a_page_without_a_main_part_is_taken_whole(self) -> None:
        assert text_of("<div><span>Only a few words</span></div>", "html") == "Only a few words"

    def test_broken_markup_is_read(self) -> None:
        assert "text" in text_of("<p>text<b><i></p><table><td>", "html")


class TestPdf:
    def test_pages_become_text(self) -> None:
        result = extract(make_pdf(["First page of words", "Second page"]), "pdf")
        assert result.text == "First page of words\n\nSecond page"
        assert result.notes == ()

    def test_a_bad_page_costs_only_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original = pypdf.PageObject.extract_text

        def fails_on_bad(page: pypdf.PageObject) -> str:
            text = original(page)
            if "Bad" in text:
                raise KeyError("/Font")
            return text

        monkeypatch.setattr(pypdf.PageObject, "extract_text", fails_on_bad)
        result = extract(make_pdf(["Good page", "Bad page", "Last page"]), "pdf")
        assert result.text == "Good page\n\nLast page"
        assert result.notes == ("page 2: KeyError: '/Font'",)

    def test_damaged_contents_do_not_stop_the_reading(self) -> None:
        assert "Good page" in extract(make_pdf(["", "Good page"]), "pdf").text

    def test_the_limits_cut_and_say_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(extraction, "MAX_PDF_PAGES", 2)
        result = extract(make_pdf(["one", "two", "three"]), "pdf")
        assert result.text == "one\n\ntwo"
        assert result.notes == ("cut after page 2 of 3",)
        monkeypatch.setattr(extraction, "MAX_PDF_CHARACTERS", 2)
        assert extract(make_pdf(["one", "two", "three"]), "pdf").text == "one"

    def test_a_page_of_endless_drawing_is_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(extraction, "MAX_PDF_PAGE_BYTES", 60)
        result = extract(make_pdf(["short", "a much longer page of words than that"]), "pdf")
        assert result.text == "short"
        assert "page 2" in result.notes[0]

    @pytest.mark.parametrize("data", [b"not a pdf at all", b"%PDF-1.4\n", make_pdf(["x"])[:40]])
    def test_a_broken_file_is_an_error(self, data: bytes) -> None:
        with pytest.raises(FormatError, match="a PDF"):
            extract(data, "pdf")

    def test_a_password_is_an_error(self) -> None:
        writer = pypdf.PdfWriter(clone_from=BytesIO(make_pdf(["secret"])))
        writer.encrypt("word", algorithm="RC4-128")
        out = BytesIO()
        writer.write(out)
        with pytest.raises(FormatError, match="password"):
            extract(out.getvalue(), "pdf")

    def test_scans_without_text_are_an_error(self) -> None:
        with pytest.raises(FormatError, match=r"without text \(1 pages, perhaps scanned\)"):
            extract(make_pdf([" "]), "pdf")

    def test_words_cut_at_line_ends_are_joined(self) -> None:
        assert (
            join_hyphens("exam-\nple, F-\n16, well-\nKnown, 3-\nb") == "example, F-\n16, well-\nKnown, 3-\nb"
        )
