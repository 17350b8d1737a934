from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from matura.core.errors import FormatError
from matura.tokenizer import conversation
from matura.tokenizer.conversation import Format
from matura.tokenizer.from_gguf import from_gguf, merges_by_score, tokenizer_files
from matura.tokenizer.to_gguf import metadata
from matura.tokenizer.tokenizer import Roles, Tokenizer
from tests.gguf_files import byte_level_vocabulary, sentencepiece_vocabulary

TEXTS = (
    "hello hello  end12 world",
    " hello",
    "   <|im_end|> <end_of_turn><think> é 🙂\n\n\thell",
    "hello world  wor ld▁world",
    "",
)
PRE_TOKENIZERS = (
    "smollm",
    "gpt-2",
    "llama-bpe",
    "smaug-bpe",
    "qwen2",
    "stablelm2",
    "tekken",
    "gpt-4o",
    "default",
)


def format_of(values: dict[str, Any], **more: Any) -> Format:
    return conversation.from_files(tokenizer_files(values | more))


def again(format: Format, vocabulary: int | None = None) -> Format:
    """Written and read back."""
    return conversation.from_files(
        tokenizer_files(metadata(format, vocabulary or format.tokenizer.vocab_size))
    )


def assert_same(one: Format, other: Format) -> None:
    assert [other.tokenizer.encode(text) for text in TEXTS] == [one.tokenizer.encode(text) for text in TEXTS]
    assert [other.tokenizer.encode_markup(text) for text in TEXTS] == [
        one.tokenizer.encode_markup(text) for text in TEXTS
    ]
    ids = range(one.tokenizer.vocab_size)
    assert [other.tokenizer.token_bytes(id) for id in ids] == [one.tokenizer.token_bytes(id) for id in ids]
    assert other.tokenizer.roles == one.tokenizer.roles
    assert other.tokenizer.special_ids == one.tokenizer.special_ids
    assert other.tokenizer.prefix_ids == one.tokenizer.prefix_ids
    assert other.tokenizer.suffix_ids == one.tokenizer.suffix_ids
    assert (other.template, set(other.stop_ids)) == (one.template, set(one.stop_ids))
    assert other.generation == pytest.approx(one.generation)


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_byte_level_tokenizers_come_back(pre: str) -> None:
    values = byte_level_vocabulary(pre, **{"general.sampling.temp": 0.5, "general.sampling.top_k": 20})
    written = metadata(format_of(values), len(values["tokenizer.ggml.tokens"]))
    assert {name: written[name] for name in ("tokenizer.ggml.model", "tokenizer.ggml.pre")} == {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
    }
    for name in ("tokens", "merges", "token_type", "bos_token_id", "eos_token_id"):
        np.testing.assert_array_equal(written[f"tokenizer.ggml.{name}"], values[f"tokenizer.ggml.{name}"])
    assert_same(format_of(values), again(format_of(values)))


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("begin", [True, False])
def test_sentencepiece_tokenizers_come_back(prefix: bool, begin: bool) -> None:
    values = sentencepiece_vocabulary(
        **{"tokenizer.ggml.add_space_prefix": prefix, "tokenizer.ggml.add_bos_token": begin}
    )
    format = format_of(values)
    written = metadata(format, format.tokenizer.vocab_size)
    assert written["tokenizer.ggml.model"] == "llama"
    assert written["tokenizer.ggml.add_space_prefix"] is prefix
    assert written["tokenizer.ggml.tokens"] == values["tokenizer.ggml.tokens"]
    types = written["tokenizer.ggml.token_type"]
    np.testing.assert_array_equal(types, values["tokenizer.ggml.token_type"])
    # The scores may be others, but they order all merges in the same way.
    scores = [found["tokenizer.ggml.scores"].tolist() for found in (values, written)]
    one, other = (merges_by_score(written["tokenizer.ggml.tokens"], types, given) for given in scores)
    assert one == other
    assert_same(format, again(format))


def llama2(**more: Any) -> Tokenizer:
    """A SentencePiece-type tokenizer as transformers makes one from Llama 2's or Gemma's."""
    source = from_gguf(sentencepiece_vocabulary()).backend
    backend = tokenizers.Tokenizer(source.model)
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = source.decoder
    added = [token for _, token in sorted(source.get_added_tokens_decoder().items()) if token.special]
    backend.add_special_tokens(added)
    for name, part in more.items():
        setattr(backend, name, part)
    return Tokenizer(backend, Roles(bos="<bos>", eos="<eos>", unk="<unk>", pad="<pad>"))


@pytest.mark.parametrize(
    ("parts", "prefix"),
    [
        ({}, False),
        ({"pre_tokenizer": pre_tokenizers.Split(" ", "merged_with_previous")}, False),
        (
            {"normalizer": normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])},
            True,
        ),
        ({"normalizer": None, "pre_tokenizer": pre_tokenizers.Metaspace(split=False)}, True),
        (
            {
                "normalizer": None,
                "pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="never", split=False),
            },
            False,
        ),
    ],
)
def test_sentencepiece_tokenizers_of_transformers(parts: dict[str, Any], prefix: bool) -> None:
    tokenizer = llama2(**parts)
    format = Format(tokenizer, None, [1])
    written = metadata(format, tokenizer.vocab_size)
    assert written["tokenizer.ggml.add_space_prefix"] is prefix
    texts = ["hello", "hello world", "hello  hell é"]
    found = from_gguf(written)
    assert [found.encode(text) for text in texts] == [tokenizer.encode(text) for text in texts]


def test_runs_of_spaces_that_are_tokens_of_their_own_are_written_as_spaces() -> None:
    values = sentencepiece_vocabulary()
    tokens, types = list(values["tokenizer.ggml.tokens"]), values["tokenizer.ggml.token_type"].copy()
    at = tokens.index("  ")
    tokens[at], types[at] = "▁▁", 1  # as in tokenizer.json: a word, and found before words are made
    tokenizer = from_gguf(values | {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types})
    tokenizer.backend.add_tokens([AddedToken("▁▁", normalized=False)])
    format = Format(Tokenizer(tokenizer.backend, tokenizer.roles), None, [1])
    written = metadata(format, len(tokens))
    assert (written["tokenizer.ggml.tokens"][at], written["tokenizer.ggml.token_type"][at]) == ("  ", 4)
    assert from_gguf(written).encode("hello  world") == format.tokenizer.encode("hello  world")


def test_rows_of_embeddings_without_a_token_get_unused_ones() -> None:
    values = byte_level_vocabulary()
    count = len(values["tokenizer.ggml.tokens"])
    format = format_of(values)
    written = metadata(format, count + 3)
    assert written["tokenizer.ggml.token_type"].tolist()[-4:] == [4, 5, 5, 5]
    assert len(set(written["tokenizer.ggml.tokens"])) == count + 3
    assert again(format, count + 3).tokenizer.encode(TEXTS[2]) == format.tokenizer.encode(TEXTS[2])
    with pytest.raises(FormatError, match=rf"has {count} tokens, the model only {count - 1} rows"):
        metadata(format, count - 1)


def stopping(*stops: int, template: str = "", eos: str | None = "<|im_end|>") -> dict[str, Any]:
    tokenizer = from_gguf(byte_level_vocabulary())
    tokenizer = Tokenizer(tokenizer.backend, Roles(bos=None, eos=eos))
    found = metadata(Format(tokenizer, template, stops), tokenizer.vocab_size)
    names = [f"tokenizer.ggml.{role}_token_id" for role in ("eos", "eot", "eom")]
    return {"ids": [found.get(name) for name in names], "stops": set(tokenizer_files(found).stop_ids)}


def test_every_stop_token_is_kept() -> None:
    assert stopping()["ids"] == [2, None, None]
    assert stopping(2, 0) == {"ids": [2, 0, None], "stops": {2, 0}}
    assert stopping(0, 1) == {"ids": [2, 0, 1], "stops": {2, 0, 1}}
    # Without an end token the first stop token is one, and without that what separates documents.
    assert stopping(1, 0, eos=None) == {"ids": [1, 0, None], "stops": {0, 1}}
    assert stopping(eos=None)["ids"] == [0, None, None]
    # The name of one in the template is enough.
    end = stopping(0, 3, 2, template="<|im_end|>", eos="<|im_start|>")
    assert end["ids"] == [1, 0, 3]
    assert end["stops"] == {0, 1, 2}
    with pytest.raises(FormatError, match="more stop tokens than GGUF has places for: h"):
        stopping(2, 0, 1, byte_level_vocabulary()["tokenizer.ggml.tokens"].index("h"))


def test_generation_defaults_without_a_place_are_named() -> None:
    tokenizer = from_gguf(byte_level_vocabulary())
    given = {"do_sample": False, "top_p": 0.9, "no_repeat_ngram": 3}
    with pytest.warns(UserWarning, match="no place for the generation defaults no_repeat_ngram"):
        found = metadata(Format(tokenizer, None, [2], given), tokenizer.vocab_size)
    sampling = {name: value for name, value in found.items() if name.startswith("general.sampling")}
    assert sampling == {"general.sampling.top_p": 0.9, "general.sampling.temp": 0.0}


def changed(**parts: Any) -> Tokenizer:
    """The byte-level tokenizer with other parts."""
    source = from_gguf(byte_level_vocabulary())
    for name, part in parts.items():
        setattr(source.backend, name, part)
    return Tokenizer(source.backend, source.roles)


def plain(model: Any, **parts: Any) -> Tokenizer:
    backend = tokenizers.Tokenizer(model)
    for name, part in parts.items():
        setattr(backend, name, part)
    return Tokenizer(backend)


WORDS = {"a": 0, "b": 1, "ab": 2, "c": 3, "bc": 4}
BYTES = WORDS | {f"<0x{byte:02X}>": 5 + byte for byte in range(256)}
REPLACE = normalizers.Replace(" ", "▁")
AROUND = processors.TemplateProcessing(single="<|im_end|> $A <|im_end|>", special_tokens=[("<|im_end|>", 2)])
REFUSED = {
    "WordPiece": (
        lambda: plain(models.WordPiece({"[UNK]": 0, "a": 1})),
        "of the kind WordPiece; GGUF has no",
    ),
    "Unigram": (lambda: plain(models.Unigram([("a", 0.0)])), "of the kind Unigram"),
    "BPE without bytes": (lambda: plain(models.BPE(vocab=WORDS, merges=[])), "BPE without bytes"),
    "no merges": (
        lambda: plain(models.BPE(vocab=WORDS, merges=[]), decoder=decoders.ByteLevel()),
        "has no merges, and llama.cpp reads no byte-level BPE without",
    ),
    "words of its own": (
        lambda: changed(
            pre_tokenizer=pre_tokenizers.Sequence(
                [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
            )
        ),
        "has no name in GGUF files",
    ),
    "no words": (lambda: changed(pre_tokenizer=None), "has no name in GGUF files"),
    "lower case": (lambda: changed(normalizer=normalizers.Lowercase()), "normalizer Lowercase: GGUF has no"),
    "NFC of another family": (lambda: changed(normalizer=normalizers.NFC()), "has no name in GGUF files"),
    "end on both sides": (lambda: changed(post_processor=AROUND), r"writes <\|im_end\|> before every text"),
    "merges without scores": (
        lambda: plain(
            # "ab" can be made of its letters too, so it has a score, and its place would be another one.
            models.BPE(vocab=BYTES, merges=[("b", "c")], byte_fallback=True),
            normalizer=REPLACE,
            decoder=decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()]),
        ),
        "merges is not one of scores",
    ),
    "a text of its own": (lambda: llama2(normalizer=normalizers.Lowercase()), "in a way of its own"),
    "words of spaces": (
        lambda: llama2(normalizer=None, pre_tokenizer=pre_tokenizers.Metaspace(split=True)),
        "in a way of its own",
    ),
    "no end": (
        lambda: plain(
            models.BPE(vocab=BYTES, merges=[("a", "b"), ("b", "c")], byte_fallback=True), normalizer=REPLACE
        ),
        "no end token",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_gguf_cannot_hold_is_refused(case: str) -> None:
    make, message = REFUSED[case]
    tokenizer = make()
    with pytest.raises(FormatError, match=message):
        metadata(Format(tokenizer, None, []), tokenizer.vocab_size)
