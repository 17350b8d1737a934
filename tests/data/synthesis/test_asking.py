"""From a document to a prompt, from an answer to records, and the filters on the way."""

from collections import Counter
from pathlib import Path

import pytest

from matura.core.errors import ConfigError, FormatError
from matura.core.records import Conversation, Document, read_conversations, write_conversations
from matura.core.synthesis_settings import Keep, Tasks
from matura.data.synthesis import asking, filters, making, templates
from matura.data.synthesis.answers import Answer, Ask, ask
from matura.data.synthesis.asking import Request, Writer

DOCUMENT = Document("d1", "The moon turns around the earth. It takes a month. " * 20, "moon.md")
ASK = Ask("d1/question_answer", "?", DOCUMENT.text, 7)


def plain(task: str = "rephrase", frame: str = "{document}{question}") -> Writer:
    prompt = templates.Prompt(task, "t", frame)
    return Writer(
        prompt, lambda values: frame.format(**{"document": "", "question": "", "style": ""} | dict(values))
    )


@pytest.mark.parametrize(
    ("text", "whole", "expected"),
    [
        ("Question: a?\nAnswer: b.", True, [("a?", "b.")]),
        ("Sure!\n\n**Question 1:** a?\n**Answer 1:** b\nand c.\n\n2. Q: d?\nA: e", True,
         [("a?", "b\nand c."), ("d?", "e")]),
        ("Q: a?\nA: b\nQ: c?\nA: d and", False, [("a?", "b")]),
        ("Question: a?\nQuestion: b?\nAnswer: c", True, [("b?", "c")]),
        ("Answer: no question", True, []),
        ("A text about questions: none.", True, []),
        ("Q" + " " * 300_000, True, []),
    ],
)  # fmt: skip
def test_pairs_are_found_in_what_teachers_write(
    text: str, whole: bool, expected: list[tuple[str, str]]
) -> None:
    assert asking.pairs(text, whole) == expected


def test_records_name_teacher_template_document_and_seed() -> None:
    request = Request(ASK, "question_answer", "", DOCUMENT, "question_answer@1")
    (row,) = asking.records(request, Answer("Q: why?\nA: so."), "someone")
    assert isinstance(row, Conversation)
    assert row.provenance == {
        "teacher": "someone", "template": "question_answer@1", "task": "question_answer", "document": "d1",
        "source": "moon.md", "seed": "7",
    }  # fmt: skip
    assert asking.records(request, Answer("nothing"), "someone") == asking.NO_PAIRS
    assert asking.records(request, Answer(failure="gone"), "someone") == "gone"
    texts = Request(ASK, "rephrase", "simple", DOCUMENT, "rephrase@1")
    (cut,) = asking.records(texts, Answer("One. Two. Thr", whole=False), "someone")
    assert isinstance(cut, Conversation)
    assert (cut.text, cut.provenance["style"]) == ("One. Two.", "simple")
    assert asking.records(texts, Answer("no end", whole=False), "someone") == asking.UNFINISHED


def test_every_document_gets_every_task_and_is_shortened_until_it_fits() -> None:
    tasks = Tasks(kinds=("rephrase", "continue"), styles=("simple", "dialogue"), characters=500)
    writers = {task: plain(task) for task in ("rephrase", "continue")}
    found = list(asking.requests([DOCUMENT], tasks, writers, 0, lambda prompt: len(prompt) <= 300))
    assert [one.ask.id for one in found] == ["d1/rephrase/simple", "d1/rephrase/dialogue", "d1/continue"]
    assert len({one.ask.seed for one in found}) == 3
    assert all(100 < len(one.ask.prompt) <= 300 and one.ask.document.endswith(".") for one in found)
    with pytest.raises(FormatError, match="do not fit into the teacher's context"):
        list(asking.requests([DOCUMENT], tasks, writers, 0, lambda prompt: False))


def test_the_seeds_are_chosen_by_hash_whatever_else_is_there() -> None:
    documents = [Document(f"d{n}", "x", "s") for n in range(30)]
    chosen = asking.seeds(documents, 5, seed=1)
    assert chosen == asking.seeds(documents[::-1], 5, seed=1) != asking.seeds(documents, 5, seed=2)
    assert asking.seeds(sorted(chosen, key=lambda d: d.id), 0, seed=1) == chosen


def test_copied_words_and_the_longest_run() -> None:
    document = "one two three four five six seven eight nine ten"
    text = "Well, TWO three four, five: six! and then some other words"
    assert filters.longest_run(text, document) == 5
    assert filters.copied_share(text, document, 5) == pytest.approx(5 / 11)
    assert filters.copied_share(text, document, 6) == 0
    assert filters.longest_run("", document) == filters.copied_share("", document) == 0
    assert filters.longest_run(document, document) == 10


def test_answers_agree_by_words() -> None:
    assert filters.overlap("The Moon!", "the moon") == 1
    assert filters.overlap("it is the moon", "the moon") == pytest.approx(2 * 2 / 6)
    assert filters.overlap("yes", "no") == 0


def test_copies_are_found_exact_and_near_like_all_pairs_would() -> None:
    words = [f"w{n}" for n in range(40)]
    texts = [" ".join([*words[:cut], f"x{cut}", *words[cut + 1 :]]) for cut in range(0, 40, 3)]
    seen, kept = filters.Seen(0.7), list[tuple[str, set[tuple[str, ...]]]]()
    for number, text in enumerate(texts):
        parts = text.split()
        runs = {tuple(parts[i : i + 3]) for i in range(len(parts) - 2)}
        near = [one for one, theirs in kept if len(runs & theirs) >= 0.7 * len(runs | theirs)]
        found = seen.copy_of(str(number), text)
        assert (found is not None) == bool(near)
        if found is None:
            kept.append((str(number), runs))
    assert 1 <= len(kept) < len(texts)
    assert seen.copy_of("again", texts[0].upper() + "!") == ("exact", "0")


def teacher(asks: list[Ask]) -> list[tuple[Ask, Answer]]:
    """Pairs for a document; asked again it agrees about one of them only."""
    both = "Q: what turns?\nA: It is the moon that does so.\nQ: how long?\nA: I guess about a hundred years."
    said = {"what turns?": "it is the moon that does so", "how long?": "a month"}
    return [(one, Answer(said.get(one.prompt, both))) for one in asks]


def test_what_is_made_is_counted_reason_by_reason(tmp_path: Path) -> None:
    requests = [
        Request(Ask(f"d{n}/question_answer", "pairs", "moon", n), "question_answer", "", DOCUMENT, "q@1")
        for n in range(2)
    ]
    whom = making.Asking(teacher, "t", tmp_path, plain("answer", "{question}"))
    made = making.make(requests, Tasks(keep=Keep(agree=2)), 5, whom)
    assert [row.messages[0]["content"] for row in made.kept] == ["what turns?"]
    assert made.funnel() == {
        "question_answer": {
            "asked": 2, "outputs": 4, "dropped: answers disagree": 2, "dropped: exact duplicate": 1, "kept": 1,
        }
    }  # fmt: skip
    assert Counter(row["reason"] for row in making.dropped_rows(made)) == {
        making.DISAGREES: 2, making.EXACT: 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tiny", making.SHORT),
        ("long " * 30, making.LONG),
        ("The moon turns around the earth. It takes a month.", making.COPIED),
        ("The moon turns around the earth, so much I know about all these things.", making.RUN),
        ("Our satellite needs four weeks for its way.", ""),
    ],
)
def test_why_a_text_is_left_out(text: str, reason: str) -> None:
    keep = Keep(max_characters=100, max_run=5, copy_words=5, max_copied=0.6)
    assert making.fault(Conversation("c", (), text), DOCUMENT.text, keep, 10) == reason


def test_a_document_is_on_one_side_only() -> None:
    rows = [
        Conversation(f"{d}/{n}", (), "text " * 9, {"document": str(d)}) for d in range(6) for n in range(3)
    ]
    train, heldout = making.split(rows, 5, 0)
    assert len(heldout) == 3
    assert len(train) == 15
    assert not {row.provenance["document"] for row in train} & {row.provenance["document"] for row in heldout}


def test_answers_are_kept_and_groups_are_asked_whole(tmp_path: Path) -> None:
    asks = [Ask(str(n), "p", "d", n) for n in range(5)]
    asked: list[str] = []

    def echo(some: list[Ask]) -> list[tuple[Ask, Answer]]:
        asked.extend(one.id for one in some)
        return [(one, Answer(f"to {one.id} \ud800")) for one in some]

    first = ask(echo, asks[:3], tmp_path / "a.jsonl", lambda n: None)
    with open(tmp_path / "a.jsonl", "ab") as file:
        file.write(b'{"key": "torn')
    counted: list[int] = []
    both = ask(echo, asks, tmp_path / "a.jsonl", counted.append, 2)
    assert asked == ["0", "1", "2", "2", "3", "4"]
    assert both[:3] == first
    assert sum(counted) == 5
    assert ask(echo, asks, tmp_path / "a.jsonl", counted.append, 2) == both
    assert len(asked) == 6
    (tmp_path / "a.jsonl").write_text("[1]\n")
    with pytest.raises(FormatError, match="is broken at byte 0"):
        ask(echo, asks, tmp_path / "a.jsonl", counted.append)


def test_own_templates_stand_in_for_the_built_in_ones(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("version: 3\nrephrase: Say again, {{ document }}\n")
    found = templates.load(path)
    assert found["rephrase"].label == "rephrase@3"
    assert found["continue"] == templates.BUILT_IN["continue"] == templates.load(None)["continue"]
    for text, message in [
        ("rephrase: x", "`version` is missing"),
        ("version: 1\nrephrsae: x", "did you mean 'rephrase'"),
        ("version: 1\nrephrase: [x]", "rephrase must be text, found list"),
        ("- x", "expected `version` and templates by task, found list"),
        ("version: 1\nrephrase: a\nrephrase: b", "mine.yaml:3"),
    ]:
        path.write_text(text)
        with pytest.raises(FormatError, match=message):
            templates.load(path)
    with pytest.raises(ConfigError, match="there is no such file"):
        templates.load(tmp_path / "none.yaml")


def test_a_template_must_show_the_document() -> None:
    with pytest.raises(FormatError, match=r"rephrase@t does not show \{\{ document \}\}"):
        asking.check({"rephrase": plain(frame="Say it again")})
    with pytest.raises(FormatError, match="the template rephrase@t fails"):
        asking.check({"rephrase": plain(frame="{missing}")})


def test_provenance_is_written_and_read(tmp_path: Path) -> None:
    rows = [Conversation("a", (), "x", {"teacher": "t"}), Conversation("b", (), "y")]
    write_conversations(tmp_path / "c.jsonl", rows)
    assert (tmp_path / "c.jsonl").read_text().splitlines()[1] == '{"id": "b", "text": "y"}'
    assert list(read_conversations(tmp_path / "c.jsonl")) == rows
    (tmp_path / "c.jsonl").write_text('{"text": "x", "provenance": {"n": 1}}\n')
    with pytest.raises(FormatError, match=r"c.jsonl:1: 'provenance' must be an object whose values are text"):
        list(read_conversations(tmp_path / "c.jsonl"))
