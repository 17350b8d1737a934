import random
from pathlib import Path

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from matura.core.errors import FormatError, MaturaError
from matura.tokenizer.from_gguf import from_gguf
from matura.tokenizer.tokenizer import Roles, Tokenizer, byte_letters, load
from tests.gguf_files import byte_level_vocabulary, sentencepiece_vocabulary

TEXTS = [
    "hello hello  hello\n\n",
    "<|im_end|>",
    "a<|im_start|><|im_end|>b <|endoftext|>",
    "naïve 日本語 😀 \u200d e\u0301 \x00\x7f",
    "",
    "12 1212 ½",
    " \t \r\n ",
]


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    return from_gguf(byte_level_vocabulary())


@pytest.fixture(scope="module")
def sentencepiece() -> Tokenizer:
    return from_gguf(sentencepiece_vocabulary())


def word_level(**settings: str) -> Tokenizer:
    """A tokenizer whose own vocabulary spells the special token: only cutting the text keeps it plain."""
    vocabulary = {"<unk>": 0, "</s>": 1, "a": 2, "</": 3, "s>": 4, "<": 5, "/s>": 6}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer(backend, Roles(eos="</s>", unk="<unk>"))


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_and_is_never_a_special_token(byte_level: Tokenizer, text: str) -> None:
    ids = byte_level.encode(text)
    assert not byte_level.special_ids.intersection(ids)
    assert byte_level.decode(ids) == text
    assert byte_level.decode(ids, skip_special=True) == text


@pytest.mark.parametrize("text", ["<end_of_turn>", "<bos>hello<eos>", "hello  world é", "<0x0A>", "<pad>"])
def test_the_same_for_sentencepiece(sentencepiece: Tokenizer, text: str) -> None:
    ids = sentencepiece.encode(text)
    assert not sentencepiece.special_ids.intersection(ids)
    assert sentencepiece.decode(ids) == text


def test_markup_is_recognised_only_when_asked_for(byte_level: Tokenizer) -> None:
    end = byte_level.id("<|im_end|>")
    assert byte_level.encode_markup("hello<|im_end|>") == [*byte_level.encode("hello"), end]
    assert len(byte_level.encode("<|im_end|>")) > 3
    assert byte_level.encode("<|im_end|>") == byte_level.encode("<|im_end|>")  # and asking changed nothing


def test_a_vocabulary_that_spells_its_special_token_is_cut() -> None:
    tokenizer = word_level()
    assert tokenizer.encode("a </s> a") == [2, 5, 6, 2]
    assert tokenizer.encode_batch(["a </s> a", "a"]) == [[2, 5, 6, 2], [2]]
    assert tokenizer.encode("what") == [0]  # "unknown" may be said of a text
    assert tokenizer.encode("</s> " * 20_000) == [5, 6] * 20_000


def test_a_batch_equals_one_by_one(byte_level: Tokenizer) -> None:
    assert byte_level.encode_batch(TEXTS) == [byte_level.encode(text) for text in TEXTS]


def test_lone_surrogates_become_the_replacement_character(byte_level: Tokenizer) -> None:
    assert byte_level.decode(byte_level.encode("a\ud83d!")) == "a\ufffd!"


def test_user_defined_tokens_are_text(byte_level: Tokenizer) -> None:
    think = byte_level.id("<think>")
    assert byte_level.encode("<think>hello") == [think, *byte_level.encode("hello")]
    assert think not in byte_level.special_ids
    assert byte_level.decode([think, 2], skip_special=True) == "<think>"


@pytest.mark.parametrize("name", ["byte_level", "sentencepiece"])
def test_a_stream_of_any_ids_equals_decode(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    source = random.Random(0)
    for _ in range(500):
        ids = [source.randrange(tokenizer.vocab_size + 2) for _ in range(source.randrange(12))]
        for skip in (False, True):
            stream = tokenizer.stream(skip_special=skip)
            pieces = [stream.push(id) for id in ids] + [stream.finish()]
            assert "".join(pieces) == tokenizer.decode(ids, skip_special=skip)
        if name == "byte_level":
            assert tokenizer.decode(ids) == tokenizer.backend.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("name", ["byte_level", "sentencepiece"])
def test_a_stream_gives_whole_characters(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    ids = tokenizer.encode("é😀")
    assert len(ids) >= 6
    stream = tokenizer.stream()
    assert [piece for piece in (stream.push(id) for id in ids) if piece] == ["é", "😀"]
    assert stream.finish() == ""
    stream.push(ids[0])
    stream.push(*ids[-4:-1])
    assert stream.finish().endswith("\ufffd")


def test_token_bytes_are_what_a_token_stands_for(byte_level: Tokenizer, sentencepiece: Tokenizer) -> None:
    ids = byte_level.encode("é hello")
    assert b"".join(map(byte_level.token_bytes, ids)) == "é hello".encode()
    assert byte_level.token_bytes(ids[0]) == b"\xc3"
    assert byte_level.token_bytes(byte_level.id("<|im_end|>")) == b"<|im_end|>"
    assert byte_level.token_bytes(10**6) == b""
    assert sentencepiece.token_bytes(sentencepiece.id("▁hello")) == b" hello"
    assert sentencepiece.token_bytes(sentencepiece.id("<0x0A>")) == b"\n"
    assert sorted(byte_letters().values()) == list(range(256))


def test_wordpiece_streams_too() -> None:
    backend = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "play": 1, "##ing": 2, "now": 3}))
    backend.decoder = decoders.WordPiece()
    tokenizer = Tokenizer(backend, Roles(unk="[UNK]"))
    stream = tokenizer.stream()
    assert [stream.push(id) for id in (1, 2, 3)] == ["play", "ing", " now"]
    assert tokenizer.decode([1, 2, 3]) == "playing now"


def test_the_surroundings_come_from_the_post_processor() -> None:
    vocabulary = {"[CLS]": 0, "[SEP]": 1, "a": 2, "[UNK]": 3}
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(["[CLS]", "[SEP]"])
    backend.post_processor = processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0))
    tokenizer = Tokenizer(backend)
    assert (tokenizer.prefix_ids, tokenizer.suffix_ids) == ((0,), (1,))
    assert tokenizer.encode("a") == [2]
    assert tokenizer.bos_id is None


def test_truncation_and_padding_of_a_file_are_switched_off(byte_level: Tokenizer) -> None:
    backend = tokenizers.Tokenizer.from_str(byte_level.backend.to_str())
    backend.enable_truncation(2)
    backend.enable_padding(length=50)
    assert Tokenizer(backend).encode("hello hello hello") == byte_level.encode("hello hello hello")


def test_markup_ids_survive_gaps_in_the_vocabulary() -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 7}, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken("<x>"), AddedToken("<y>")])
    tokenizer = Tokenizer(backend)
    assert tokenizer.encode_markup("b<y>") == [7, tokenizer.id("<y>")]
    assert tokenizer.vocab_size > max(tokenizer.special_ids)


def test_saves_the_same_bytes_and_loads_them(byte_level: Tokenizer, tmp_path: Path) -> None:
    first = byte_level.save(tmp_path).read_bytes()
    again = load(tmp_path, byte_level.settings())
    assert again.roles == byte_level.roles
    assert again.encode_batch(TEXTS) == byte_level.encode_batch(TEXTS)
    assert again.save(tmp_path).read_bytes() == first
    (tmp_path / "conversation.json").write_text('{"tokenizer_settings": {"eos": "<|im_end|>"}}')
    assert load(tmp_path).eos_id == 2
    assert load(tmp_path).bos_id is None


def test_errors_say_what_is_wrong(byte_level: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(MaturaError, match=r"no token '<\|im_ende\|>'. Did you mean '<\|im_end\|>'\?"):
        byte_level.id("<|im_ende|>")
    with pytest.raises(FormatError, match=r"eos token '</s>' is not in its vocabulary"):
        Tokenizer(byte_level.backend, Roles(eos="</s>"))
    with pytest.raises(FormatError, match=r"tokenizer\.json: cannot be read"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("[" * 100_000)
    with pytest.raises(FormatError, match="not a tokenizer that can be read"):
        load(tmp_path)
    byte_level.save(tmp_path)
    with pytest.raises(FormatError, match="must be texts named bos, eos, pad, unk"):
        load(tmp_path, {"begin": "<s>"})
