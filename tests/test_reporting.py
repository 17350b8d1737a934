"""The verb `report`, and the page at the end of a run."""

from matura.commands import reporting
from matura.evaluate.story import page
from tests.evaluate.story import runs


def test_the_verb_says_where_the_page_is(tmp_path, capsys):
    workspace = runs.small(tmp_path)
    reporting.report("life", None, workspace)
    assert (workspace.runs / "life" / "report.html").is_file()
    assert capsys.readouterr().out.rstrip().endswith("runs/life/report.html")
    reporting.report("life", tmp_path, workspace)
    assert (tmp_path / "report.html").is_file()
    reporting.report("life", tmp_path / "new" / "mine.html", workspace)
    assert (tmp_path / "new" / "mine.html").is_file()


def test_a_page_that_cannot_be_written_costs_no_run(tmp_path, capsys):
    workspace = runs.small(tmp_path)
    (workspace.runs / "life" / page.FILE).mkdir()
    reporting.refresh("life", workspace)
    found = capsys.readouterr()
    assert "could not be written" in found.err
    assert not found.out
