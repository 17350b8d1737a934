"""Which tokens begin words, in the three kinds of vocabularies."""

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from matura.tokenizer.tokenizer import Roles, Tokenizer
from matura.tokenizer.words import starts_word


def wordpiece() -> Tokenizer:
    names = ["[PAD]", "[UNK]", "[MASK]", "play", "##ing", "##s", ".", "[EOS]", "<extra_id_0>", "<extra_id_1>"]
    backend = tokenizers.Tokenizer(models.WordPiece({n: i for i, n in enumerate(names)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [n for n in names if n.startswith(("[", "<"))]
    backend.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in special])
    return Tokenizer(backend, Roles(mask="[MASK]", unk="[UNK]", pad="[PAD]", eos="[EOS]"))


def byte_level() -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n")]
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend)


def unigram() -> Tokenizer:
    pieces = ["<unk>", "▁", "▁the", "in", "g", ",", "t", "h", "e"]
    backend = tokenizers.Tokenizer(models.Unigram([(p, -float(i)) for i, p in enumerate(pieces)], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return Tokenizer(backend, Roles(unk="<unk>"))


def begun(tokenizer: Tokenizer, text: str) -> list[str]:
    """The words of a text by the table."""
    starts, found = starts_word(tokenizer), list[str]()
    for id in tokenizer.encode(text):
        name = tokenizer.token(id) or ""
        if starts[id] or not found:
            found.append(name)
        else:
            found[-1] += name
    return found


@pytest.mark.parametrize(
    ("tokenizer", "text", "expected"),
    [
        (wordpiece(), "playing plays.", ["play##ing", "play##s", "."]),
        (byte_level(), "thein the in,\nin", ["thein", "Ġthe", "Ġin", ",", "Ċin"]),
        (byte_level(), "é thé", ["Ã©", "ĠthÃ©"]),
        (unigram(), "theing thein,the", ["▁theing", "▁thein", ",the"]),
    ],
    ids=["wordpiece", "byte-level", "byte-level, parts of characters", "unigram"],
)
def test_words(tokenizer: Tokenizer, text: str, expected: list[str]) -> None:
    assert begun(tokenizer, text) == expected
