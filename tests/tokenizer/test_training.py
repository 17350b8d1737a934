"""Training: how words are cut, what the alphabet holds, and scores that cost no tokens."""

import json
from collections.abc import Iterator

import pytest
import tokenizers
from tokenizers import models

from matura.core.errors import MaturaError
from matura.tokenizer import pretokenizers, training
from matura.tokenizer.training import Plan
from tests.made_texts import text


def texts() -> Iterator[str]:
    return (text(n) for n in range(60))


def words(pattern: str, digits: str) -> list[str]:
    return [word for word, _ in training.byte_level(pattern, digits).pre_tokenize_str("don't 2024!")]


def test_how_words_are_cut() -> None:
    assert words("gpt-2", "together") == ["don", "'t", "Ġ2024", "!"]
    assert words("gpt-2", "single") == ["don", "'t", "Ġ", "2", "0", "2", "4", "!"]
    assert words("llama3", "together") == ["don", "'t", "Ġ", "202", "4", "!"]
    assert words(r"\s+|\S+", "together") == ["don't", "Ġ", "2024!"]
    smollm = pretokenizers.pre_tokenizer("smollm").__getstate__()
    assert training.byte_level("gpt-2", "single").__getstate__() == smollm  # so GGUF files can name it


def test_every_byte_has_a_token() -> None:
    made = training.train(texts, Plan("bpe", 300, ("<a>",)))
    alphabet = set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert alphabet <= set(made.get_vocab())
    assert made.token_to_id("<a>") == 0


def test_min_frequency_bounds_merges() -> None:
    some = training.train(texts, Plan("bpe", 2000, (), min_frequency=40)).get_vocab_size()
    more = training.train(texts, Plan("bpe", 2000, (), min_frequency=2)).get_vocab_size()
    assert some < more < 2000


def test_rare_letters_of_wordpiece_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LETTERS", 20)
    made = training.train(texts, Plan("wordpiece", 300, ("[UNK]",), "[UNK]", normalization="uncased"))
    letters = {token.removeprefix("##") for token in made.get_vocab() if len(token.removeprefix("##")) == 1}
    assert len(letters) == 20
    rare = sorted(
        {letter for some in texts() for letter in some.lower() if letter.isascii() and letter.isalpha()}
        - letters
    )
    assert rare
    assert [made.encode(letter).tokens for letter in rare] == [["[UNK]"]] * len(rare)


def test_scores_of_unigram_need_no_more_tokens_than_the_librarys() -> None:
    made = training.train(texts, Plan("unigram", 420, ("<unk>",), "<unk>", normalization="none"))
    pieces = dict(json.loads(made.to_str())["model"]["vocab"])
    library = tokenizers.Tokenizer(models.Unigram())
    library.pre_tokenizer = made.pre_tokenizer
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=420 - 257, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    library.train_from_iterator(texts(), trainer)
    theirs = {piece for piece, _ in json.loads(library.to_str())["model"]["vocab"]}
    assert theirs - {"<unk>"} <= set(pieces)
    counts = [sum(len(one.encode(some).ids) for some in texts()) for one in (made, library)]
    assert counts[0] <= counts[1] * 1.005
    assert all(score < 0 for score in pieces.values())


def test_a_vocabulary_without_room() -> None:
    for kind, least in (("bpe", 257), ("unigram", 283), ("wordpiece", 53)):
        with pytest.raises(MaturaError, match=f"at least {least}"):
            training.train(texts, Plan(kind, 52, ("[UNK]",), "[UNK]"))
