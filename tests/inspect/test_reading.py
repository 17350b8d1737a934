"""Texts as models read them, and tokens that people point at."""

import pytest

from matura.core.errors import MaturaError
from matura.inspect.reading import inputs, label, listing, pick, shown
from matura.model import config as c
from tests.model import tiny
from tests.tiny_models import chatml

LABELS = ("The", " cat", " saw", " the", " 7", " cat", "\n", "é", " 3")


def encoder(**more: object) -> c.ModelConfig:
    return c.ModelConfig(vocabulary=300, context=12, encoder=tiny.gpt_stack(causal=False), **more)


def test_a_token_is_picked_by_its_text_or_its_number() -> None:
    assert pick(LABELS, "saw") == pick(LABELS, " saw") == pick(LABELS, "2") == pick(LABELS, "#2") == 2
    assert pick(LABELS, "The") == 0  # the very spelling goes before the other case
    assert pick(LABELS, "the") == 3
    assert pick(LABELS, "SAW") == 2
    assert pick(LABELS, "7") == 4  # a token that is a number goes before the position
    assert pick(LABELS, "#7") == 7
    assert pick(LABELS, "3") == 8


def test_an_ambiguous_or_unknown_token_is_told_with_what_there_is() -> None:
    with pytest.raises(
        MaturaError, match=r"'cat' is the token at several positions: 1, 5\. Give its position"
    ):
        pick(LABELS, "cat")
    with pytest.raises(MaturaError, match=r"no token is 'sav'\. Did you mean 'saw'\?.* 1 ·cat  2 ·saw"):
        pick(LABELS, "sav")
    for number in ("9", "#9", "-1", "²"):
        with pytest.raises(MaturaError, match="no token is"):
            pick(LABELS, number)


def test_labels_show_spaces_and_move_no_cursor() -> None:
    assert listing([" a", "b\n"]) == "0 ·a  1 b\\n"
    assert shown("\x1b[31mred\x07\u202e") == "\\x1b[31mred\\x07\\u202e"
    tokenizer = chatml().tokenizer
    ids = tokenizer.encode(" hello é")
    assert [label(tokenizer, id) for id in ids] == [" hello", " ", "\\xc3", "\\xa9"]
    assert label(tokenizer, tokenizer.id("<|im_end|>")) == "<|im_end|>"


def test_a_decoder_reads_a_text_after_its_opening() -> None:
    tokenizer = chatml().tokenizer
    own = tuple(tokenizer.encode("hello 12"))
    config = tiny.llama_config()
    plain = inputs(config, tokenizer, "hello 12").target
    assert plain is not None
    assert (plain.ids, plain.added, plain.sinks) == (own, (), (0,))
    begun = inputs(config, tokenizer, "hello 12", begin=0).target
    assert begun is not None
    assert (begun.ids, begun.added, begun.sinks) == ((0, *own), (0,), (0,))
    assert begun.labels[0] == "<|endoftext|>"
    assert begun.words == list(range(1, 1 + len(own)))


def test_an_encoder_reads_what_stands_around_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = chatml().tokenizer
    monkeypatch.setattr(tokenizer, "prefix_ids", (1,))
    monkeypatch.setattr(tokenizer, "suffix_ids", (2,))
    own = tuple(tokenizer.encode("hello 12"))
    config = encoder()
    source = inputs(config, tokenizer, "hello 12", begin=0).source
    assert source is not None
    assert (source.ids, source.sinks) == ((1, *own, 2), (0, len(own) + 1))
    both = encoder(decoder=tiny.gpt_stack(cross=True), start_id=0)
    given = inputs(both, tokenizer, "hello 12", "hello")
    assert given.source == source
    assert given.target is not None
    assert given.target.ids == (0, *tokenizer.encode("hello"))
    assert inputs(both, tokenizer, "hello 12").target is None


def test_texts_that_cannot_be_read_are_told() -> None:
    tokenizer = chatml().tokenizer
    with pytest.raises(MaturaError, match="the text is empty"):
        inputs(tiny.llama_config(), tokenizer, "")
    with pytest.raises(MaturaError, match="no encoder, so it reads one text only"):
        inputs(tiny.llama_config(), tokenizer, "a", "b")
    with pytest.raises(MaturaError, match="no decoder, so it reads one text only"):
        inputs(encoder(), tokenizer, "a", "b")
    with pytest.raises(MaturaError, match="has 13 tokens and the model's context is 12; shorten it"):
        inputs(encoder(), tokenizer, "a" * 13)
