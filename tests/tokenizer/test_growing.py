"""A larger vocabulary: what is not repeated is read as before, what is takes fewer tokens, and no id moves."""

import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import tokenizers

from matura.core.errors import FormatError, MaturaError
from matura.tokenizer import conversation, growing, to_gguf
from matura.tokenizer.conversation import Format
from matura.tokenizer.from_gguf import from_gguf, tokenizer_files
from matura.tokenizer.growing import grow
from matura.tokenizer.tokenizer import Roles, Tokenizer
from tests.gguf_files import sentencepiece_vocabulary
from tests.made_texts import text
from tests.tiny_models import chatml

TALK = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "12 hello"}]
DOMAIN = ["restore-db-instance from snapshot", "describe the db-instance, then restore it"] * 6


def with_added_at_the_end() -> Format:
    """As Llama 3 and Qwen have it: the ids of added tokens follow those of the vocabulary."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE({letter: i for i, letter in enumerate(alphabet)}, [])
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(["<|end|>", "<|user|>"])
    made = Tokenizer(backend, Roles(eos="<|end|>"))
    template = "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}"
    return Format(made, template, [made.id("<|end|>")])


FORMATS = pytest.mark.parametrize("make", [chatml, with_added_at_the_end])


@FORMATS
def test_what_is_repeated_takes_fewer_tokens_and_the_rest_its_old_ones(make: Callable[[], Format]) -> None:
    format = make()
    grown = grow(format, DOMAIN, 20, 5)
    old, new = format.tokenizer, grown.format.tokenizer
    assert list(grown.pieces) == list(range(old.vocab_size, old.vocab_size + 20))
    assert new.vocab_size == old.vocab_size + 20
    assert sum(len(new.encode(one)) for one in DOMAIN) < 0.7 * sum(len(old.encode(one)) for one in DOMAIN)
    assert grown.after < grown.before
    for other in ("QUITE ANOTHER MATTER", "zzz \n\n 日本語 😀", ""):
        assert new.encode(other) == old.encode(other)
    for one in [*DOMAIN, "a restored snap", "description"]:
        assert new.decode(new.encode(one)) == one
        pieces = [grown.pieces.get(id, (id,)) for id in new.encode(one)]
        assert [id for some in pieces for id in some] == old.encode(one)


@FORMATS
def test_no_token_moves_and_conversations_are_written_as_before(
    make: Callable[[], Format], tmp_path: Path
) -> None:
    format = make()
    grown = grow(format, DOMAIN, 20, 5)
    grown.format.save(tmp_path)
    for made in (grown.format, conversation.load(tmp_path)):
        before = format.tokenizer.backend.get_vocab(with_added_tokens=True)
        after = made.tokenizer.backend.get_vocab(with_added_tokens=True)
        assert before.items() <= after.items()
        assert made.tokenizer.special_ids == format.tokenizer.special_ids
        assert made.tokenizer.roles == format.tokenizer.roles
        assert (made.template, made.stop_ids) == (format.template, format.stop_ids)
        assert made.tokenizer.decode(made.prompt(TALK)) == format.tokenizer.decode(format.prompt(TALK))
        marks = [[id for id in one.prompt(TALK) if id in one.tokenizer.special_ids] for one in (made, format)]
        assert marks[0] == marks[1]
        said = [{"role": "user", "content": "<|end|> restore <|im_end|>"}]
        assert not set(made.stop_ids) & set(made.tokenizer.encode(said[0]["content"]))
        assert "restore" in made.tokenizer.decode(made.prompt(said))
        assert made.tokenizer.encode(DOMAIN[0]) == grown.format.tokenizer.encode(DOMAIN[0])


def plainly(words: dict[tuple[int, ...], int], first: int, add: int, least: int) -> list[tuple[int, int]]:
    """Merges with all pairs counted again before each."""
    merges: list[tuple[int, int]] = []
    while len(merges) < add:
        pairs: Counter[tuple[int, int]] = Counter()
        for word, often in words.items():
            for pair in pairwise(word):
                pairs[pair] += often
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < least:
            break
        merges.append(best)
        cut: Counter[tuple[int, ...]] = Counter()
        for word, often in words.items():
            cut[tuple(growing._merged(word, best, first + len(merges) - 1))] += often
        words = cut
    return merges


class Numbers:
    """Every pair may become a token."""

    def __init__(self, first: int) -> None:
        self.next = first

    def join(self, pair: tuple[int, int]) -> int:
        self.next += 1
        return self.next - 1


def test_the_merges_are_those_of_counting_everything_again() -> None:
    chance = random.Random(3)
    for _ in range(30):
        words = Counter(tuple(chance.choices(range(4), k=chance.randrange(2, 9))) for _ in range(25))
        cut = [list(word) for word in words]
        found = growing._learn(cut, list(words.values()), Numbers(10), 12, 3)  # type: ignore[arg-type]
        assert list(found.values()) == plainly(dict(words), 10, 12, 3)
        assert list(found) == list(range(10, 10 + len(found)))


def test_the_same_texts_give_the_same_tokens_and_real_text_comes_back() -> None:
    texts = [text(n) for n in range(40)]
    one, other = (grow(chatml(), list(texts), 200, 4) for _ in range(2))
    assert one.pieces == other.pieces
    assert one.format.tokenizer.backend.to_str() == other.format.tokenizer.backend.to_str()
    assert all(one.format.tokenizer.decode(one.format.tokenizer.encode(some)) == some for some in texts)
    written = to_gguf.metadata(one.format, one.format.tokenizer.vocab_size)
    again = conversation.from_files(tokenizer_files(written)).tokenizer
    assert all(again.encode(some) == one.format.tokenizer.encode(some) for some in texts)


def test_what_cannot_grow_is_told() -> None:
    with pytest.raises(MaturaError, match=r"no two tokens stand together 50 times.*min_count"):
        grow(chatml(), DOMAIN, 10, 50)
    sentencepiece = Format(from_gguf(sentencepiece_vocabulary()), None, [])
    with pytest.raises(FormatError, match="only a byte-level BPE vocabulary can grow"):
        grow(sentencepiece, DOMAIN, 10, 2)
