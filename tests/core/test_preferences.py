import json
from pathlib import Path

import pytest

from matura.core.errors import FormatError
from matura.core.preferences import Answer, Ranking, read_rankings, write_rankings

ASKED = ({"role": "user", "content": "Wie geht's? \U0001f600"},)
ROWS = [
    Ranking("prompt", ASKED),
    Ranking("sampled", ASKED, (Answer("gut"), Answer("sehr", end="length", source="model"))),
    Ranking(
        "judged",
        ASKED,
        (Answer("a", rank=1, score=0.5), Answer("b", rank=1), Answer("c", liked=False), Answer("")),
        group="tree",
        annotator="anna",
        facts={"gold": "42"},
        tools=({"name": "t"},),
        provenance={"from": "x"},
    ),
]


def test_rankings_come_back_as_written_in_equal_bytes(tmp_path: Path) -> None:
    assert write_rankings(tmp_path / "a.jsonl", ROWS) == 3
    assert list(read_rankings(tmp_path / "a.jsonl")) == ROWS
    write_rankings(tmp_path / "b.jsonl", read_rankings(tmp_path / "a.jsonl"))
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert json.loads((tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()[0]).keys() == {
        "id",
        "messages",
    }


GOOD = {"messages": [{"role": "user", "content": "q"}], "answers": [{"text": "a"}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": []}, "unknown key 'answer'; did you mean 'answers'"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "assistant", "content": "q"}]}, "the last message is the assistant's"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\] has no 'content'"),
        ({"answers": [{"text": 1}]}, r"answers\[0\]: text"),
        ({"answers": [{"text": "a", "rank": 0}]}, r"answers\[0\].rank: expected 1"),
        ({"answers": [{"text": "a", "rank": True}]}, r"answers\[0\].rank"),
        ({"answers": [{"text": "a", "score": "2"}]}, r"answers\[0\].score"),
        ({"answers": [{"text": "a", "liked": 1}]}, r"answers\[0\].liked"),
        ({"answers": [{"text": "a", "end": "eos"}]}, r"answers\[0\].end"),
        ({"answers": [{"text": "a"}] * 1025}, "at most 1,024"),
        ({"facts": {"gold": 1}}, "facts must be an object"),
        ({"tools": {}}, "tools must be a list"),
    ],
)
def test_what_is_no_ranking_is_refused_by_line(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps({**GOOD, **change}) + "\n", encoding="utf-8")
    with pytest.raises(FormatError, match=message) as error:
        list(read_rankings(path))
    assert str(error.value).startswith(f"{path}:3: ")


def test_numbers_that_json_has_not_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"messages": [{"role": "user", "content": "q"}], "answers": [{"text": "a", "score": NaN}]}\n'
    )
    with pytest.raises(FormatError, match="expected a number"):
        list(read_rankings(path))
    with pytest.raises(FormatError, match="not valid Unicode"):
        write_rankings(path, [Ranking("x", ASKED, (Answer("\udcff"),))])
