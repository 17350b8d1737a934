"""Records to examples: what is trained and with which weight, what is cut, what is dropped and counted."""

from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from matura.core.errors import MaturaError
from matura.core.records import CUT, Conversation, Document
from matura.tokenizer.conversation import Format
from matura.tokenizer.tokenizer import Roles, Tokenizer
from matura.train import examples
from matura.train.batches import Example, pack
from tests.tiny_models import chatml, talk

PADDED_WITH_END = (
    "{{ bos_token }}{% for m in messages %}{{ m.role + ': ' + m.content }}"
    "{{ eos_token if m.role == 'assistant' else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def one_end() -> Format:
    """A tokenizer that pads with its end token, as GPT-2 and many others are set up, and begins texts with a token."""
    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])
    tokenizer = Tokenizer(backend, Roles(bos="<s>", eos="</s>", pad="</s>"))
    return Format(tokenizer, PADDED_WITH_END, [tokenizer.id("</s>")])


def turns(*answers: str, **more: Any) -> Conversation:
    """A question before every answer; `more` goes into the first answer's message."""
    messages: list[dict[str, Any]] = []
    for n, answer in enumerate(answers):
        messages += [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": answer}]
    messages[1] |= more
    return Conversation("row", tuple(messages))


def trained(example: Example, format: Format) -> list[tuple[str, float]]:
    """Runs of trained tokens as text, with their weights."""
    runs: list[tuple[list[int], float]] = []
    for id, weight, before in zip(example.ids, example.weights, (0.0, *example.weights), strict=False):
        if weight and weight == before:
            runs[-1][0].append(id)
        elif weight:
            runs.append(([id], weight))
    return [(format.tokenizer.decode(ids), weight) for ids, weight in runs]


def test_documents_are_trained_whole_in_pieces_that_begin_as_texts_do() -> None:
    format = chatml()
    documents = [
        Document("a", "hello world " * 20, "a.md"),
        Document("b", "b", "b.md"),
        Document("c", "", "c"),
    ]
    made = examples.from_documents(documents, format, 32)
    assert all(len(e.ids) <= 32 and e.ids[0] == format.begin_id for e in made)
    found = [id for e in made for id, mask in zip(e.ids, e.mask, strict=True) if mask]
    assert format.tokenizer.decode(found) == "hello world " * 20 + "b"


def test_conversations_train_the_answers_and_texts_everything() -> None:
    format = chatml()
    rows = [talk(1), Conversation("t", (), "plain text")]
    (chat, plain), dropped = examples.from_conversations(rows, format, 200)
    rendered = format.render(talk(1).messages)
    end = rendered.answers[0].end  # what follows the last trained token changes no loss
    assert (list(chat.ids), list(chat.mask)) == (rendered.ids[:end], rendered.mask[:end])
    assert chat.ids[-1] in format.stop_ids
    assert format.tokenizer.decode(plain.ids[1:]) == "plain text"
    assert plain.trained == len(plain.ids) - 1
    assert not dropped


def test_the_end_token_is_trained_when_it_is_also_the_padding() -> None:
    """T3: masks go by place, so the end of every answer keeps its loss."""
    format = one_end()
    assert format.tokenizer.pad_id == format.tokenizer.eos_id
    ((example,), _) = examples.from_conversations([turns("yes", "no")], format, 200)
    assert trained(example, format) == [("yes</s>", 1.0), ("no</s>", 1.0)]
    assert pack([example]).targets_N.tolist().count(format.stop_ids[0]) == 2


def test_every_kind_of_row_begins_with_one_begin_token() -> None:
    """T2: one, where the template writes it and where a plain text gets it, whatever a message spells."""
    format = one_end()
    begin = format.tokenizer.bos_id
    rows = [turns("yes <s>", "<s>no"), Conversation("t", (), "<s>plain text")]
    made = examples.from_conversations(rows, format, 200).examples
    made += examples.from_documents([Document("d", "a text", "d")], format, 200)
    assert len(made) == 3
    for example in made:
        assert example.ids[0] == begin
        assert example.ids.count(begin) == 1


def test_messages_weigh_what_they_say() -> None:
    format = chatml()
    row = turns("one", "two", "three", weight=0.25)
    row.messages[3]["weight"] = 0
    ((example,), dropped) = examples.from_conversations([row], format, 400)
    assert trained(example, format) == [("one<|im_end|>", 0.25), ("three<|im_end|>", 1.0)]
    assert not dropped
    row.messages[5]["weight"] = 0
    ((shorter,), _) = examples.from_conversations([row], format, 400)
    assert example.ids[: len(shorter.ids)] == shorter.ids
    assert len(shorter.ids) < len(example.ids)
    row.messages[1]["weight"] = 0
    assert examples.from_conversations([row], format, 400) == ([], {examples.UNTRAINED: 1})


def test_the_weight_is_nothing_that_a_template_sees() -> None:
    format = chatml()
    shows = Format(format.tokenizer, "{% for m in messages %}{{ m }}<|im_end|>{% endfor %}", format.stop_ids)
    with_weight = turns("a", weight=0.5, **CUT)
    (made, _) = examples.from_conversations([with_weight], shows, 400)
    assert "weight" not in format.tokenizer.decode(made[0].ids)
    assert "cut" not in format.tokenizer.decode(made[0].ids)


def test_the_last_answer_alone() -> None:
    """T7: the prompt ends where the last answer's turn begins, also when answers begin alike."""
    format = chatml()
    for last in ("same start, one end", "same start, other", "same start"):
        row = turns("same start, one end", last)
        ((example,), _) = examples.from_conversations([row], format, 400, turns="last")
        assert trained(example, format) == [(f"{last}<|im_end|>", 1.0)]
        assert list(example.ids[: example.mask.index(True)]) == format.prompt(row.messages[:-1])


def test_an_unfinished_answer_and_one_that_is_cut_have_no_stop_token() -> None:
    format = chatml()
    ((example,), _) = examples.from_conversations([turns("one", "two", **CUT)], format, 400)
    assert trained(example, format) == [("one", 1.0), ("two<|im_end|>", 1.0)]
    row = turns("a long answer")
    whole = len(examples.from_conversations([row], format, 400).examples[0].ids)
    ((cut,), dropped) = examples.from_conversations([row], format, whole - 3)
    assert trained(cut, format) == [("a long answ", 1.0)]
    assert not dropped
    ((uncut,), _) = examples.from_conversations([row], format, whole, truncation="drop")
    assert trained(uncut, format) == [("a long answer<|im_end|>", 1.0)]
    found = examples.from_conversations([row], format, whole - 1, truncation="drop")
    assert found == ([], {examples.LONG: 1})


def test_rows_whose_answer_is_cut_off_are_dropped_and_counted() -> None:
    """T11: no row without a trained token reaches a batch; each is counted by its reason."""
    format = chatml()
    whole = format.render(talk(1).messages)
    start = whole.mask.index(True)
    rows = [talk(1), Conversation("empty", (), ""), talk(1)]
    none, dropped = examples.from_conversations(rows, format, start)
    assert (none, dropped) == ([], {examples.CUT_AWAY: 2, examples.EMPTY: 1})
    made, dropped = examples.from_conversations(rows, format, start + 2)
    assert [e.trained for e in made] == [2, 2]
    assert dropped == {examples.EMPTY: 1}
    late = examples.from_conversations([turns("one", "two")], format, start + 2, turns="last")
    assert late == ([], {examples.CUT_AWAY: 1})


def test_the_row_that_cannot_be_written_is_named() -> None:
    format = Format(chatml().tokenizer, "{{ raise_exception('no') }}", (2,))
    with pytest.raises(MaturaError, match=r"conversation 'c7': .*no.*say 7"):
        examples.from_conversations([talk(7)], format, 100)
