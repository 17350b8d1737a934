"""What is learned from, read: artifacts and files alike, and settings that would do nothing refused."""

import json
from pathlib import Path

import pytest

from matura.core.conversation_settings import ConversationData
from matura.core.errors import ConfigError, MaturaError
from matura.core.raw import raw_input
from matura.core.records import Conversation, Held, characters
from matura.train import material
from matura.train.material import check_settings, spread
from tests.tiny_models import chatml, conversations, corpus, talk
from tests.train.test_batches import examples


def test_artifacts_and_files_have_two_sides(tmp_path: Path) -> None:
    settings = ConversationData(heldout=2, bad_rows="drop")
    documents = material.read(corpus(tmp_path / "corpus"), settings)
    assert (len(documents.train), len(documents.heldout), documents.found) == (10, 2, {})
    talks = material.read(conversations(tmp_path / "talks", [talk(1)], [talk(2)]), settings)
    assert ([row.id for row in talks.train], [row.id for row in talks.heldout]) == (["c1"], ["c2"])
    rows = [{"messages": list(talk(n).messages)} for n in range(9)] + [{"messages": []}]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = material.read(raw_input(tmp_path / "mine.jsonl"), settings)
    assert (len(own.train), len(own.heldout)) == (7, 2)
    assert own.found == {"heldout_rows": 2, "bad_rows": 1}


@pytest.mark.parametrize("kind", ["corpus", "talks", "files"])
def test_more_text_than_memory_should_hold_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [talk(n) for n in range(9)]
    (tmp_path / "mine.jsonl").write_text(
        "".join(json.dumps({"messages": list(r.messages)}) + "\n" for r in rows)
    )
    source = {
        "corpus": lambda: corpus(tmp_path / "corpus"),
        "talks": lambda: conversations(tmp_path / "talks", rows[:7], rows[7:]),
        "files": lambda: raw_input(tmp_path / "mine.jsonl"),
    }[kind]()
    most = (
        sum(map(characters, rows))
        if kind != "corpus"
        else 12 * len("Note 0: hello hello, 0 is a number. " * 3)
    )
    monkeypatch.setattr(Held.__init__, "__defaults__", (2 * most,))
    material.read(source, ConversationData())
    monkeypatch.setattr(Held.__init__, "__defaults__", (most // 2,))
    with pytest.raises(MaturaError, match=rf"more than {most // 2:,} characters of text.*in memory"):
        material.read(source, ConversationData())


def test_examples_follow_the_settings() -> None:
    format = chatml()
    long = Conversation("long", (*talk(1).messages, *talk(2).messages))
    both = material.make([long], format, 200, ConversationData())
    last = material.make([long], format, 200, ConversationData(turns="last"))
    assert both.examples[0].trained == 2 * last.examples[0].trained
    dropped = material.make([long], format, 60, ConversationData(truncation="drop"))
    assert dropped == ([], {"too long": 1})
    assert material.make([], format, 60, ConversationData()) == ([], {})


def test_the_meter_takes_examples_from_all_over() -> None:
    made = examples(200)
    chosen = spread(made, 300)
    assert 200 < sum(len(example.ids) for example in chosen) < 400
    assert made.index(chosen[0]) < 20
    assert made.index(chosen[-1]) > 180
    assert spread(made, 10**9) == made
    assert spread(made[:1], 1) == made[:1]
    assert spread([], 100) == []


def test_what_is_for_files_is_refused_without() -> None:
    check_settings(ConversationData(turns="last", truncation="drop"), None)
    with pytest.raises(ConfigError, match=r"data\.columns is for files"):
        check_settings(ConversationData(columns={"text": "body"}), None)
