from typing import Any

import numpy as np
import pytest

from matura.core.errors import FormatError
from matura.tokenizer.from_gguf import from_gguf, tokenizer_files
from matura.tokenizer.pretokenizers import pre_tokenizer
from tests.gguf_files import byte_level_vocabulary, sentencepiece_vocabulary

# One text that tells the families apart: contractions, digits, capitals inside words, runs of spaces.
SAMPLE = "I'LL go, 12345 HelloWorld\n\n  x!?"
WORDS = {
    "smollm": ["I", "'", "LL", "Ġgo", ",", "Ġ", *"12345", "ĠHelloWorld", "ĊĊĠ", "Ġx", "!?"],
    "gpt-2": ["I", "'", "LL", "Ġgo", ",", "Ġ12345", "ĠHelloWorld", "ĊĊĠ", "Ġx", "!?"],
    "llama-bpe": ["I", "'LL", "Ġgo", ",", "Ġ", "123", "45", "ĠHelloWorld", "ĊĊ", "Ġ", "Ġx", "!?"],
    "qwen2": ["I", "'LL", "Ġgo", ",", "Ġ", *"12345", "ĠHelloWorld", "ĊĊ", "Ġ", "Ġx", "!?"],
    "tekken": ["I", "'LL", "Ġgo", ",", "Ġ", *"12345", "ĠHello", "World", "ĊĊ", "Ġ", "Ġx", "!?"],
    "gpt-4o": ["I'LL", "Ġgo", ",", "Ġ", "123", "45", "ĠHello", "World", "ĊĊ", "Ġ", "Ġx", "!?"],
    "default": ["I", "'", "LL", "Ġgo", ",", "Ġ", "123", "45", "ĠHelloWorld", "ĊĊĠ", "Ġx", "!?"],
}


@pytest.mark.parametrize("name", WORDS)
def test_each_pre_tokenizer_cuts_its_own_words(name: str) -> None:
    assert [word for word, _ in pre_tokenizer(name).pre_tokenize_str(SAMPLE)] == WORDS[name]


def test_byte_level_ids() -> None:
    files = tokenizer_files(byte_level_vocabulary())
    tokenizer = files.tokenizer
    names = [tokenizer.token(id) for id in tokenizer.encode("hello hello  end12")]
    # "1 2" is a merge, but this family splits digits first.
    assert names == ["hello", "Ġhello", "Ġ", "Ġ", "end", "1", "2"]
    assert [tokenizer.token(id) for id in from_gguf(byte_level_vocabulary("gpt-2")).encode("12")] == ["12"]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.unk_id) == (1, 2, 2, 0)
    assert tokenizer.special_ids == {0, 1, 2}
    assert tokenizer.vocab_size == len(byte_level_vocabulary()["tokenizer.ggml.tokens"])
    assert tokenizer.prefix_ids == ()
    assert files.stop_ids == (2,)
    assert files.chat_template == "{{ messages[0]['content'] }}<|im_end|>"


def test_sentencepiece_ids_follow_the_scores() -> None:
    files = tokenizer_files(sentencepiece_vocabulary())
    tokenizer = files.tokenizer
    names = [tokenizer.token(id) for id in tokenizer.encode("hello hello  world é")]
    # "▁hello" has the best score; what follows a user-defined token starts anew; é falls back to its bytes.
    assert names == ["hello", "▁hello", "  ", "w", "or", "ld", "▁", "<0xC3>", "<0xA9>"]
    assert [tokenizer.token(id) for id in tokenizer.encode("a world")] == ["<0x61>", "▁world"]
    assert tokenizer.prefix_ids == (tokenizer.id("<bos>"),)
    assert files.stop_ids == (tokenizer.id("<eos>"), tokenizer.id("<end_of_turn>"))
    prefixed = from_gguf(sentencepiece_vocabulary(**{"tokenizer.ggml.add_space_prefix": True}))
    assert [prefixed.token(id) for id in prefixed.encode("hello")] == ["▁hello"]
    assert prefixed.decode(prefixed.encode("hello")) == "hello"


def test_begin_tokens_and_defaults_of_the_file() -> None:
    assert from_gguf(
        byte_level_vocabulary("llama-bpe") | {"tokenizer.ggml.add_bos_token": True}
    ).prefix_ids == (1,)
    silent = byte_level_vocabulary("llama-bpe")
    del silent["tokenizer.ggml.add_bos_token"]
    assert from_gguf(silent).prefix_ids == (1,)
    sampling = {"general.sampling.temp": 0.5, "general.sampling.top_k": 20}
    assert tokenizer_files(byte_level_vocabulary(**sampling)).generation == {"temperature": 0.5, "top_k": 20}
    assert tokenizer_files(byte_level_vocabulary(**{"tokenizer.ggml.eot_token_id": 1})).stop_ids == (2, 1)


def test_normalizes_only_where_the_model_did() -> None:
    assert from_gguf(byte_level_vocabulary("qwen2")).encode("e\u0301") == from_gguf(
        byte_level_vocabulary("qwen2")
    ).encode("\u00e9")
    smollm = from_gguf(byte_level_vocabulary())
    assert smollm.decode(smollm.encode("e\u0301")) == "e\u0301"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.model": "bert"}, "'bert' .* not supported"),
        ({"tokenizer.ggml.model": None}, "'tokenizer.ggml.model' must be a text"),
        ({"tokenizer.ggml.pre": "smolm"}, r"'smolm' \(tokenizer.ggml.pre\) is not known \(near: 'smollm'\)"),
        ({"tokenizer.ggml.tokens": ["a", "a"]}, "one number for each of the 2 tokens"),
        ({"tokenizer.ggml.tokens": "abc"}, "must be a list of texts"),
        ({"tokenizer.ggml.merges": ["a"]}, "must hold pairs like 'a b', not 'a'"),
        ({"tokenizer.ggml.merges": ["a zz"]}, "do not fit together: .*zz"),
        ({"tokenizer.ggml.merges": [1]}, "must be a list of texts"),
        ({"tokenizer.ggml.eos_token_id": 10**6}, "'tokenizer.ggml.eos_token_id' must be a token from 0 to"),
        ({"tokenizer.ggml.bos_token_id": -1}, "must be a token from 0 to"),
        ({"tokenizer.ggml.token_type": np.ones(3, np.int32)}, "one number for each of the"),
        ({"tokenizer.chat_template": 3}, "'tokenizer.chat_template' must be a text"),
        ({"general.sampling.temp": "hot"}, "'temperature' must be a number"),
    ],
)
def test_refuses_metadata_that_contradicts_itself(change: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        tokenizer_files(byte_level_vocabulary() | change)


def test_a_token_that_occurs_twice_is_named() -> None:
    metadata = byte_level_vocabulary()
    metadata["tokenizer.ggml.tokens"][5] = metadata["tokenizer.ggml.tokens"][4]
    with pytest.raises(FormatError, match="twice"):
        from_gguf(metadata)
