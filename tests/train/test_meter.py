"""The forgetting meter: the same figures as the exam's, exactly nothing for the parent, and what changes is seen."""

import copy
import math

import pytest
import torch

from matura.core.records import Conversation, Document
from matura.evaluate import score
from matura.model.logprobs import continuation_kl
from matura.train import examples
from matura.train.meter import ROW, Looks, Meter, Text
from tests.tiny_models import chatml, network, talk

FORMAT = chatml()
TEXTS = [f"Note {n}: grüße, {n * 7919} is a number and this is text. " * 2 for n in range(6)]


def written() -> Text:
    documents = [Document(f"d{n}", text, "") for n, text in enumerate(TEXTS)]
    return Text.of(examples.from_documents(documents, FORMAT, 256), FORMAT.tokenizer)


def moved(scale: float = 0.05) -> torch.nn.Module:
    model = network()
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw), alpha=scale)
    return model


def test_bits_per_byte_and_divergence_are_those_of_the_exam() -> None:
    parent, child, text = network(), moved(), written()
    assert text.bytes == sum(len(one.encode()) for one in TEXTS)
    meter = Meter(text, parent)
    for model, found in ((parent, meter.parent), (child, meter.read(child))):
        bits = score.documents(model, FORMAT.tokenizer, TEXTS, begin=FORMAT.begin_id, window=256)
        expected = math.fsum(one.bits for one in bits) / sum(one.bytes for one in bits)
        assert found.bpb == pytest.approx(expected, rel=1e-5)
        rows = [
            row for one in TEXTS for row in score.windows(FORMAT.tokenizer.encode(one), FORMAT.begin_id, 256)
        ]
        nats = [value for row in continuation_kl(parent, model, rows) for value in row]
        assert found.kl == pytest.approx(math.fsum(nats) / len(nats), rel=1e-4, abs=1e-7)
        assert len(nats) == text.tokens
    assert meter.read(child).kl > 0.01


def test_the_parent_is_exactly_where_it_was_and_looking_changes_nothing() -> None:
    parent = network().train()
    meter = Meter(written(), parent)
    before = copy.deepcopy(parent.state_dict())
    assert meter.read(parent) == meter.parent
    assert parent.training
    assert all(torch.equal(before[name], tensor) for name, tensor in parent.state_dict().items())


def test_what_the_parent_said_is_kept_when_its_copy_trains_on() -> None:
    parent = network()
    meter, trained = Meter(written(), parent), moved()
    first = meter.read(trained)
    assert meter.read(trained) == first
    assert first.bpb != meter.parent.bpb


def test_only_answers_count_and_the_stop_token_has_bits_but_no_bytes() -> None:
    rows = [talk(n) for n in range(3)]
    made = examples.from_conversations(rows, FORMAT, 256)[0]
    text = Text.of(made, FORMAT.tokenizer)
    answers = [
        message["content"] for row in rows for message in row.messages if message["role"] == "assistant"
    ]
    assert text.bytes <= sum(len(answer.encode()) + 1 for answer in answers)
    assert text.bytes >= sum(len(answer.encode()) for answer in answers)
    assert text.tokens > sum(len(FORMAT.tokenizer.encode(answer)) for answer in answers)


def test_long_texts_are_read_in_several_rows() -> None:
    rows = [Conversation(f"t{n}", (), "abcdefgh " * 20) for n in range(24)]
    text = Text.of(examples.from_conversations(rows, FORMAT, 256)[0], FORMAT.tokenizer)
    assert len(text.batches) > 1
    assert all(batch.tokens <= ROW for batch in text.batches)
    assert text.bytes == 24 * 180


def test_looks_say_what_there_is_text_for() -> None:
    model = network()
    assert Looks()(model) == {}
    assert Looks().change({}) == 0.0
    meter = Meter(written(), model)
    looks = Looks(written().batches[0], meter)
    found = looks(moved())
    assert set(found) == {"heldout_loss", "general_bpb", "general_kl"}
    assert looks.change(found) == pytest.approx(found["general_bpb"] / meter.parent.bpb - 1)
    with pytest.raises(ValueError, match="a text without bytes"):
        Meter(Text((), 0), model)
