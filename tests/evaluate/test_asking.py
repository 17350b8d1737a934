"""The one interface: what is asked together is answered as if it were asked alone."""

import math

import pytest
import torch

from matura.core.errors import MaturaError
from matura.core.records import CUT, Conversation
from matura.evaluate import asking, shelf
from matura.evaluate.asking import Answers, Reader, Roll, Score, Scored, Turns, Write
from matura.evaluate.score import Bits
from matura.model import config as c
from matura.train.batches import pack
from matura.train.examples import from_conversation
from matura.train.objectives import next_token
from tests import tiny_models
from tests.model.tiny import build, gpt_stack

EXAMPLES = "Question: one and one\nAnswer: two\n\nQuestion: two and two\nAnswer: four\n\n"
QUESTIONS = [f"{EXAMPLES}Question: {n} and {n}\nAnswer:" for n in ("three", "four", "many thousands")]
SCORES = [Score(context, f" {choice}") for context in QUESTIONS for choice in ("six", "eight of them", "no")]
SCORES += [Score("", " alone"), Score("ends in space ", "x"), Score("short", " one")]


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(tiny_models.network(), tiny_models.chatml(), tiny_models.CONTEXT)


def test_scores_asked_together_are_those_asked_alone(reader: Reader) -> None:
    together = asking.score(reader, SCORES)
    for request, found in zip(SCORES, together, strict=True):
        (alone,) = asking.score(reader, [request])
        assert found.logprob == pytest.approx(alone.logprob, abs=1e-5)
        assert (found.greedy, found.bytes, found.tokens) == (alone.greedy, alone.bytes, alone.tokens)
    assert together[1].bytes == len(" eight of them")


def test_bytes_are_those_of_the_text_that_is_scored(reader: Reader) -> None:
    """In a chat an answer of one letter has one byte, for the space before it is not asked; in plain text the space at
    the end of the context is asked, and counts."""
    chat = Score(Turns((("user", "Which letter?"),)), " A")
    plain, after_space = Score("Which letter?", " A"), Score("Which letter? ", "A")
    in_chat, whole, moved = asking.score(reader, [chat, plain, after_space])
    assert (in_chat.bytes, whole.bytes, moved.bytes) == (1, 2, 2)
    assert moved.logprob == pytest.approx(whole.logprob, abs=1e-5)
    for one in (chat, plain, after_space):
        _, ids = asking.pair(reader.format, one)
        assert reader.format.tokenizer.decode(ids) == asking.scored_text(one)


def test_greedy_says_that_every_token_is_the_likeliest(reader: Reader) -> None:
    tokenizer = reader.format.tokenizer
    ids = tokenizer.encode("Question")
    for _ in range(3):
        ids.append(int(reader.model.logits(reader.model.decode(torch.tensor([ids])))[0, -1].argmax()))
    likely, other = tokenizer.decode(ids)[len("Question") :], " never"
    found = asking.score(reader, [Score("Question", likely), Score("Question", other)])
    assert [one.greedy for one in found] == [tokenizer.encode(f"Question{likely}") == ids, False]


def test_texts_rolled_over_together_are_those_alone(reader: Reader) -> None:
    texts = ["one text " * 60, "x", "another text"]
    together = asking.rolling(reader, texts)
    for text, found in zip(texts, together, strict=True):
        (alone,) = asking.rolling(reader, [text])
        assert (found.bits, found.bytes) == (pytest.approx(alone.bits, abs=1e-4), len(text.encode()))


def test_answers_of_conversations_cost_what_training_counts(reader: Reader) -> None:
    asked, said = {"role": "user", "content": "say é"}, {"role": "assistant", "content": "hello é"}
    rows = [
        tiny_models.talk(1),
        Conversation("two", (asked, said, asked, {**said, "content": "and more"})),
        Conversation("read", (asked, {**said, "weight": 0.0}, asked, {**said, "content": "x", **CUT})),
        Conversation("long", (asked, {**said, "content": "long " * 300})),
    ]
    requests = [Answers(row) for row in rows] + [Answers(rows[1], "last")]
    found = asking.answers(reader, requests)
    for one, request in zip(found, requests, strict=True):
        made, _ = from_conversation(request.row, reader.format, reader.window, turns=request.turns)
        batch = pack(made)
        with torch.no_grad():
            nats = float(next_token(reader.model, batch))
        assert one.bits == pytest.approx(nats / math.log(2), rel=1e-4)
        assert one.tokens == len(batch.targets_N)
    assert [one.bytes for one in found[:3]] == [len("hello hello 1"), len("hello éand more".encode()), 1]
    assert found[4].bytes == len("and more")
    assert asking.ask(reader, [requests[1], Roll("x"), requests[0]])[2].bits == pytest.approx(
        found[0].bits, rel=1e-5
    )
    assert shelf.unpack(shelf.pack(found[0])) == found[0]
    assert shelf.key("m", 9, requests[:1]) != shelf.key("m", 9, requests[1:2])


def test_answers_written_together_are_those_alone_and_end_before_a_stop(reader: Reader) -> None:
    asked = [Write(f"{prompt} and", (), 12) for prompt in ("a", "hello hello", "x y z")]
    together = asking.generate(reader, asked)
    assert together == [asking.generate(reader, [one])[0] for one in asked]
    whole = together[1]
    stop = whole[3:5]
    (cut,) = asking.generate(reader, [Write(asked[1].prompt, (stop,), 12)])
    assert cut == whole[: whole.index(stop)]


def test_a_prompt_that_leaves_no_room_loses_its_beginning(reader: Reader) -> None:
    long = Write("far too long " * 200, (), 16)
    ids = asking.prompt_ids(reader, long)
    assert len(ids) == tiny_models.CONTEXT - 16
    assert ids == reader.format.tokenizer.encode(long.prompt)[-len(ids) :]
    assert isinstance(asking.generate(reader, [long])[0], str)


def test_a_message_of_a_chat_is_asked_in_the_models_own_format(reader: Reader) -> None:
    plain, chat = Write("hello", (), 4), Write("hello", (), 4, chat=True)
    wanted = reader.format.prompt([{"role": "user", "content": "hello"}])
    assert asking.prompt_ids(reader, chat) == list(wanted)
    assert asking.prompt_ids(reader, plain) == reader.format.tokenizer.encode("hello")


def test_drawn_answers_depend_on_their_seed_and_on_nothing_else(reader: Reader) -> None:
    drawn = [Write("hello", (), 12, temperature=1.5, seed=seed) for seed in (1, 2, 1)]
    first, other, again = asking.generate(reader, drawn)
    assert first == again != other
    assert asking.generate(reader, drawn[:1]) == [first]


def test_a_mixed_list_comes_back_in_its_own_order(reader: Reader) -> None:
    replies = asking.ask(reader, [Write("a", (), 2), SCORES[0], Roll("text"), SCORES[1]])
    assert [type(one) for one in replies] == [str, Scored, Bits, Scored]
    assert [replies[1], replies[3]] == asking.score(reader, [SCORES[0], SCORES[1]])
    assert asking.ask(reader, []) == []


def test_a_model_that_does_not_write_sits_no_exam() -> None:
    with pytest.raises(MaturaError, match="for models that continue text"):
        Reader(
            build(c.ModelConfig(vocabulary=97, context=16, encoder=gpt_stack(causal=False))),
            tiny_models.chatml(),
            64,
        )
