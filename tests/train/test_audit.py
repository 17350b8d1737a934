"""The audit: what is trained is marked, look-alikes and borders can be seen, and the counts are those of training."""

from matura.core.conversation_settings import ConversationData
from matura.core.records import Conversation, Document
from matura.train import audit, examples
from matura.train.batches import Rows
from matura.train.material import Material
from tests.tiny_models import chatml, talk


def look(rows: list[Conversation] | list[Document], **more: int) -> audit.Audit:
    settings = {"rows": 3, "capacity": 256, "seed": 0, "length": 200} | more
    length = settings.pop("length")
    return audit.look(Material(rows, []), chatml(), length, ConversationData(), **settings)


def test_trained_tokens_are_those_of_training_and_special_ones_stand_alone() -> None:
    row = talk(1, "say <|im_end|> to me")
    row.messages[1]["weight"] = 0.5
    (shown,) = look([row]).shown
    trained = [(piece.text, piece.weight, piece.special) for piece in shown.pieces if piece.weight]
    assert trained == [("say \\<|im_end|> to me 1", 0.5, False), ("<|im_end|>", 0.5, True)]
    assert shown.stops
    assert "".join(piece.text for piece in shown.pieces).startswith(
        "<|im_start|>system\nYou help.<|im_end|>\n"
    )
    ((example,), _) = examples.from_conversations([row], chatml(), 200)
    assert (shown.tokens, shown.trained) == (len(example.ids), example.trained)


def test_counts_are_those_of_training() -> None:
    rows = [*map(talk, range(20)), Conversation("none", (), ""), talk(99, "x" * 300)]
    rows.append(
        Conversation(
            "read", ({"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0})
        )
    )
    found = look(rows, length=100)
    made, dropped = examples.from_conversations(rows, chatml(), 100)
    assert (found.rows, found.examples) == (23, len(made))
    assert found.dropped == dict(sorted(dropped.items()))
    assert found.names == {examples.EMPTY: ("none",), examples.UNTRAINED: ("read",)}
    assert found.tokens == sum(len(example.ids) for example in made)
    assert found.trained == sum(example.trained for example in made)
    assert found.longest == 100
    assert found.stops == len(made) - 1  # one is cut
    assert found.fill == Rows(made, tokens=256, seed=0).fill
    assert [row.name for row in found.shown] == ["c0", "c7", "c14"]


def test_documents_are_trained_whole() -> None:
    found = look([Document("d", "some text " * 30, "d.md"), Document("e", "short", "e.md")], length=64)
    assert found.trained == found.tokens - found.examples  # all but the token each begins with
    assert [row.name for row in look([Document("d", "one", "d"), Document("e", "two", "e")]).shown] == [
        "d",
        "e",
    ]
    assert not found.stops


def test_nothing_at_all_is_told_with_zeros() -> None:
    found = look([Conversation("none", (), "")])
    assert (found.shown, found.examples, found.longest, found.fill) == ((), 0, 0, 0.0)
