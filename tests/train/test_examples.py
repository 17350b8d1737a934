"""Records to examples: what is trained, what is cut, what is dropped and counted."""

import pytest

from matura.core.errors import MaturaError
from matura.core.records import Conversation, Document
from matura.tokenizer.conversation import Format
from matura.train import examples
from tests.tiny_models import chatml, talk


def test_documents_are_trained_whole_in_pieces_that_begin_as_texts_do() -> None:
    format = chatml()
    documents = [
        Document("a", "hello world " * 20, "a.md"),
        Document("b", "b", "b.md"),
        Document("c", "", "c"),
    ]
    made = examples.from_documents(documents, format, 32)
    assert all(len(e.ids) <= 32 and e.ids[0] == format.begin_id for e in made)
    trained = [id for e in made for id, mask in zip(e.ids, e.mask, strict=True) if mask]
    assert format.tokenizer.decode(trained) == "hello world " * 20 + "b"


def test_conversations_train_the_answers_and_texts_everything() -> None:
    format = chatml()
    rows = [talk(1), Conversation("t", (), "plain text")]
    (chat, plain), dropped = examples.from_conversations(rows, format, 200)
    rendered = format.render(talk(1).messages)
    assert (list(chat.ids), list(chat.mask)) == (rendered.ids, rendered.mask)
    assert format.tokenizer.decode(plain.ids[1:]) == "plain text"
    assert plain.trained == len(plain.ids) - 1
    assert dropped == 0


def test_rows_whose_answer_is_cut_off_are_dropped_and_counted() -> None:
    format = chatml()
    whole = format.render(talk(1).messages)
    start = whole.mask.index(True)
    rows = [talk(1), Conversation("empty", (), ""), talk(1)]
    assert examples.from_conversations(rows, format, start) == ([], 3)
    made, dropped = examples.from_conversations(rows, format, start + 2)
    assert [e.trained for e in made] == [2, 2]
    assert dropped == 1


def test_the_row_that_cannot_be_written_is_named() -> None:
    format = Format(chatml().tokenizer, "{{ raise_exception('no') }}", (2,))
    with pytest.raises(MaturaError, match=r"conversation 'c7': .*no.*say 7"):
        examples.from_conversations([talk(7)], format, 100)
