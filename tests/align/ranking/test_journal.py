"""The journal: nothing that was kept is lost, whatever happens to the process, the file or the other annotator."""

import json
import os
import random
import subprocess
import sys

import pytest

from matura.align.ranking import journal as journals
from matura.align.ranking.journal import Judgement, journal_of, open_journal
from matura.core.errors import ArtifactError, FormatError, MaturaError
from matura.core.preferences import read_rankings
from tests.align.ranking.made_rows import row, sitting


def rows_of(folder):
    return list(read_rankings(folder / "rankings.jsonl"))


def test_a_judgement_is_on_the_disk_at_once_as_a_ranking(tmp_path):
    one = sitting(tmp_path)
    one.press("1234")
    assert rows_of(tmp_path) == []
    one.press(["enter"])
    (kept,) = rows_of(tmp_path)
    assert (kept.id, kept.annotator) == ("p0", "ada")
    shown = [int(index) for index in kept.provenance["shown"].split()]
    assert [kept.answers[index].rank for index in shown] == [1, 2, 3, 4]
    assert kept.messages == row(0).messages


def test_reopening_goes_on_where_one_was(tmp_path):
    one = sitting(tmp_path)
    one.press([*"1234", "enter", "s"])
    again = sitting(tmp_path)
    assert again.item.row.id == "p2"
    assert (again.progress().judged, again.progress().skipped, again.progress().left) == (1, 1, 1)
    assert again.item.shown == one.item.shown


def test_the_last_word_counts_and_a_skip_takes_a_ranking_back(tmp_path):
    one = sitting(tmp_path)
    one.press([*"1234", "enter", *"uuuuu", *"4321", "enter"])
    assert [rank for rank in (a.rank for a in rows_of(tmp_path)[0].answers)] == [
        5 - r for r in [dict(zip(one.queue[0].shown, [(1), 2, 3, 4], strict=True))[(i,)] for i in range(4)]
    ]
    one.press([*"u", "s"])
    assert rows_of(tmp_path) == []
    assert len(journal_of(tmp_path / "rankings.jsonl").read_text().splitlines()) == 1 + 3 + 3


def test_an_undo_takes_nothing_back_by_itself(tmp_path):
    one = sitting(tmp_path)
    one.press([*"1234", "enter", *"uuu"])
    assert one.earlier.ranks
    assert len(rows_of(tmp_path)) == 1
    assert sitting(tmp_path).item.row.id == "p1"


def test_half_a_line_of_a_crash_is_cut_off_at_every_byte(tmp_path):
    one = sitting(tmp_path, [row(0, "a", "b"), row(1, "a", "b")])
    one.press([*"12", "enter"])
    path = journal_of(tmp_path / "rankings.jsonl")
    before = path.read_bytes()
    one.press([*"21", "enter"])
    whole = path.read_bytes()
    for cut in range(len(before), len(whole)):
        path.write_bytes(whole[:cut])
        again = sitting(tmp_path, [row(0, "a", "b"), row(1, "a", "b")])
        assert again.item.row.id == "p1"
        assert len(rows_of(tmp_path)) == 1
        assert path.read_bytes() == before
    again.press([*"21", "enter"])
    assert len(rows_of(tmp_path)) == 2


def test_the_rankings_file_is_written_anew_when_a_crash_kept_it_old(tmp_path):
    one = sitting(tmp_path)
    one.press([*"1234", "enter"])
    kept = (tmp_path / "rankings.jsonl").read_bytes()
    (tmp_path / "rankings.jsonl").unlink()
    open_journal(tmp_path / "rankings.jsonl")
    assert (tmp_path / "rankings.jsonl").read_bytes() == kept


def test_a_killed_annotator_loses_nothing_that_was_acknowledged(tmp_path):
    script = (
        "import sys, pathlib\nfrom tests.align.ranking.made_rows import row, sitting\n"
        "one = sitting(pathlib.Path(sys.argv[1]), [row(n) for n in range(400)])\n"
        "while one.item:\n    one.press([*'1234', 'enter'])\n    print(one.progress().judged, flush=True)\n"
    )
    told = 0
    for kill in (3, 8):
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()
        )
        assert child.stdout is not None
        for line in child.stdout:
            told = int(line)
            if told >= kill:
                child.kill()
                break
        child.stdout.close()
        child.wait()
        found = open_journal(tmp_path / "rankings.jsonl")
        assert len(found.judged_by("ada")) >= told
        assert len(rows_of(tmp_path)) >= told
    assert told >= 8


def test_two_annotators_share_one_file(tmp_path):
    ada, eve = sitting(tmp_path, annotator="ada"), sitting(tmp_path, annotator="eve")
    ada.press([*"1234", "enter"])
    eve.press([*"1234", "enter", *"1234", "enter"])
    ada.press([*"1234", "enter"])
    assert [(one.id, one.annotator) for one in rows_of(tmp_path)] == [
        ("p0", "ada"),
        ("p0", "eve"),
        ("p1", "eve"),
        ("p1", "ada"),
    ]
    assert ada.progress().left == eve.progress().left == 1


def test_a_full_disk_leaves_journal_and_state_as_they_were(tmp_path, monkeypatch):
    one = sitting(tmp_path)
    one.press("1234")
    path, real = journal_of(tmp_path / "rankings.jsonl"), os.write
    before = path.read_bytes()

    def full(file, data):
        real(file, bytes(data)[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journals.os, "write", full)
    with pytest.raises(ArtifactError, match="disk is full"):
        one.press(["enter"])
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert one.state.complete
    one.press(["enter"])
    assert len(rows_of(tmp_path)) == 1


def test_a_file_of_somebody_else_is_not_replaced(tmp_path):
    (tmp_path / "rankings.jsonl").write_text("mine\n")
    with pytest.raises(MaturaError, match="Choose another --out"):
        open_journal(tmp_path / "rankings.jsonl")
    assert (tmp_path / "rankings.jsonl").read_text() == "mine\n"


def test_other_answers_to_a_known_prompt_are_refused(tmp_path):
    sitting(tmp_path)
    with pytest.raises(MaturaError, match="other answers to the prompt 'p1'"):
        sitting(tmp_path, [row(1, "something", "else")])


GOOD = {"id": "p0", "annotator": "ada", "ranks": [1, 2], "shown": [1, 0], "seconds": 1, "at": "now"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":3: not valid JSON"),
        ("[]", ":3: this is no line"),
        ('{"verdict": {}}', ":3: a verdict has id"),
        (json.dumps({"verdict": GOOD | {"id": "p9"}}), "nothing is known of the prompt 'p9'"),
        (json.dumps({"verdict": GOOD | {"ranks": [1]}}), "one for each of 2"),
        (json.dumps({"verdict": GOOD | {"ranks": [0, 1]}}), "1 is the best"),
        (json.dumps({"verdict": GOOD | {"ranks": [True, 1]}}), "right types"),
        (json.dumps({"verdict": GOOD | {"shown": [0, 0]}}), "shown must be"),
        (json.dumps({"verdict": GOOD | {"more": 1}}), "right types"),
        ('{"item": {"id": "x"}}', "messages must be"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, message):
    sitting(tmp_path, [row(0, "a", "b")])
    path = journal_of(tmp_path / "rankings.jsonl")
    path.write_text(path.read_text() + line + "\n")
    before = path.read_bytes()
    with pytest.raises(FormatError, match=message):
        open_journal(tmp_path / "rankings.jsonl")
    assert path.read_bytes() == before


def test_another_file_is_no_journal(tmp_path):
    journal_of(tmp_path / "rankings.jsonl").write_text('{"id": "x"}\n')
    with pytest.raises(FormatError, match=":1: this is no line"):
        open_journal(tmp_path / "rankings.jsonl")


def test_random_keys_and_reopenings_never_lose_a_saved_judgement(tmp_path):
    for seed in range(6):
        draw, folder = random.Random(seed), tmp_path / str(seed)
        one, kept = sitting(folder), {}
        for _ in range(60):
            key, item = draw.choice([*"1234abcdtxsu", "enter", "enter"]), one.item
            before = one.journal.lines
            one.press([key])
            if one.journal.lines > before:
                kept[item.row.id] = one.journal.judgements[item.row.id, "ada"]
            if draw.random() < 0.1:
                one = sitting(folder)
            assert one.journal.judged_by("ada") == kept
        assert {r.id for r in rows_of(folder)} == {key for key, said in kept.items() if not said.skipped}


def test_what_is_no_unicode_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(FormatError, match="not valid Unicode"):
        sitting(tmp_path, [row(0, "\ud800", "b")])
    open_journal(tmp_path / "rankings.jsonl")


def test_a_judgement_must_fit_its_item(tmp_path):
    one = sitting(tmp_path)
    with pytest.raises(FormatError, match="nothing is known"):
        one.journal.judge(Judgement("nobody", "ada", (), ()))
