import pytest

from matura.core.errors import FormatError
from matura.data.formats.nesting import MAX_DEPTH, check_depth


@pytest.mark.parametrize("page", ["<div>" * 5_000, "<ul><li>" * 4_000, "<b>x" * 5_000 + "</b>" * 5_000])
def test_deep_pages_are_refused(page: str) -> None:
    with pytest.raises(FormatError, match="nested"):
        check_depth(page)


@pytest.mark.parametrize(
    "page",
    ["<p>x<br>" * 9_000, "<div>x</div>" * 9_000, "<li>x" * 9_000, "<div>" * MAX_DEPTH + "<td>x" * 9_000],
)
def test_long_pages_pass(page: str) -> None:
    check_depth(page)
