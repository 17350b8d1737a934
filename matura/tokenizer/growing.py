"""A vocabulary that grows by what texts repeat: merges are learned on from where they ended.

Byte-level BPE cuts a word by its merges in order, so merges that are added at the end touch nothing that was cut before
them: what the new texts do not repeat is read as ever, id for id. Pairs are counted and merged as in training (Sennrich
et al. 2016, arXiv:1508.07909), within words as the tokenizer cuts them. A new token stands for the ids that it was made
of (Sachidananda et al. 2021, arXiv:2109.07460): a model's row for it can start from theirs.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from matura.core.errors import FormatError, MaturaError
from matura.tokenizer.conversation import Format
from matura.tokenizer.tokenizer import Tokenizer, parse

Pair = tuple[int, int]


@dataclass(frozen=True)
class Grown:
    """The format with its larger vocabulary; for each new id the old ids that it stands for; and how many tokens the
    words of the texts had before and have now, those of one token left out."""

    format: Format
    pieces: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    before: int = 0
    after: int = 0


def grow(format: Format, texts: Iterable[str], add: int, least: int) -> Grown:
    """Up to `add` new tokens, of pairs that stand together at least `least` times. The same texts give the same tokens.

    Raises FormatError for another kind of tokenizer than byte-level BPE, MaturaError when no pair is so frequent.
    """
    described = _described(format.tokenizer)
    counts = _words(format.tokenizer, texts)
    words, often = list(counts), list(counts.values())
    cut = [list(word) for word in words]
    names = _Names(format.tokenizer)
    merges = _learn(cut, often, names, add, least)
    if not merges:
        raise MaturaError(
            f"no two tokens stand together {least} times in these texts, so the vocabulary cannot grow: give more "
            "text, or a smaller vocabulary.min_count"
        )
    pieces: dict[int, tuple[int, ...]] = {}
    for new, pair in merges.items():
        pieces[new] = tuple(old for id in pair for old in pieces.get(id, (id,)))
    made = _with(format.tokenizer, described, merges, names.of)
    larger = Format(made, format.template, format.stop_ids, format.generation)
    lengths = [[len(one) for one in side] for side in (words, cut)]
    before, after = (sum(n * many for n, many in zip(side, often, strict=True)) for side in lengths)
    return Grown(larger, pieces, before, after)


def _described(tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokenizer as its file has it."""
    described: dict[str, Any] = json.loads(tokenizer.backend.to_str())
    model, decoder = described["model"], described["decoder"] or {}
    steps = [one["type"] for one in decoder.get("decoders", [decoder]) if one]
    kind, affixes = model.get("type"), ("continuing_subword_prefix", "end_of_word_suffix")
    whole = described["pre_tokenizer"] is not None and not any(map(model.get, affixes))
    if kind != "BPE" or steps != ["ByteLevel"] or not whole:
        other = "another kind of BPE" if kind == "BPE" else kind
        raise FormatError(f"only a byte-level BPE vocabulary can grow, and this tokenizer is {other}")
    return described


def _words(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[tuple[int, ...]]:
    """How often each word occurs, as the ids that it has now."""
    backend, counts = tokenizer.backend, Counter[str]()
    for text in texts:
        plain = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
        counts.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(plain))
    found = Counter[tuple[int, ...]]()
    for word, often in sorted(counts.items()):
        tokens = backend.model.tokenize(word)
        if len(tokens) > 1 and "".join(token.value for token in tokens) == word:
            found[tuple(token.id for token in tokens)] += often
    return found


class _Names:
    """The names of ids, with those that are to come, and which are taken."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
        self.of = {id: name for name, id in vocabulary.items()}
        self.taken, self.next = set(vocabulary), tokenizer.vocab_size

    def join(self, pair: Pair) -> int | None:
        """The id of a new token for a pair; None when a token of this name is there already."""
        name = self.of[pair[0]] + self.of[pair[1]]
        if name in self.taken:
            return None
        new, self.next = self.next, self.next + 1
        self.of[new] = name
        self.taken.add(name)
        return new


def _learn(
    words: list[list[int]], often: Sequence[int], names: _Names, add: int, least: int
) -> dict[int, Pair]:
    """New id -> the pair that it is made of, in the order of the merges: always the most frequent pair, of equals the
    one with the smaller ids. `words` are cut anew in place."""
    pairs, places = Counter[Pair](), defaultdict[Pair, set[int]](set)
    for i, word in enumerate(words):
        for pair in pairwise(word):
            pairs[pair] += often[i]
            places[pair].add(i)
    heap = [(-count, pair) for pair, count in pairs.items() if count >= least]
    heapq.heapify(heap)
    merges: dict[int, Pair] = {}
    while heap and len(merges) < add:
        count, pair = heapq.heappop(heap)
        if -count != pairs[pair]:  # it has been counted anew since
            if pairs[pair] >= least:
                heapq.heappush(heap, (-pairs[pair], pair))
            continue
        if (new := names.join(pair)) is None:
            continue
        merges[new] = pair
        changed: set[Pair] = set()
        for i in sorted(places.pop(pair)):
            for old in pairwise(words[i]):
                pairs[old] -= often[i]
            words[i] = list(_merged(words[i], pair, new))
            for made in pairwise(words[i]):
                pairs[made] += often[i]
                places[made].add(i)
                changed.add(made)
        for made in changed:
            if pairs[made] >= least:
                heapq.heappush(heap, (-pairs[made], made))
    return merges


def _merged(word: Sequence[int], pair: Pair, new: int) -> Iterator[int]:
    """The word with every occurrence of the pair, from the left, as the new id."""
    i = 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            yield new
            i += 2
        else:
            yield word[i]
            i += 1


def _with(
    tokenizer: Tokenizer, described: dict[str, Any], merges: Mapping[int, Pair], names: Mapping[int, str]
) -> Tokenizer:
    """The tokenizer with these merges behind its own; `names` are those of all ids. Every token keeps its id: added
    ones, whose ids would follow from the size of the vocabulary, are written into it."""
    model, old = described["model"], tokenizer.backend.get_vocab(with_added_tokens=True)
    apart = bool(model["merges"]) and isinstance(model["merges"][0], str)  # as older files have them
    for left, right in merges.values():
        model["merges"].append(f"{names[left]} {names[right]}" if apart else [names[left], names[right]])
    model["vocab"] |= {name: id for id, name in names.items()}
    made = Tokenizer(parse(json.dumps(described), "the larger vocabulary"), tokenizer.roles)
    found = made.backend.get_vocab(with_added_tokens=True)
    moved = next((name for name, id in old.items() if found.get(name) != id), None)
    if moved is not None or made.vocab_size != tokenizer.vocab_size + len(merges):
        raise FormatError(
            f"this tokenizer cannot grow: its ids have gaps{'' if moved is None else f' ({moved!r} would move)'}"
        )
    return made
