"""Words and the hashes of their runs, against definitions by sets."""

import unicodedata

import numpy as np
import pytest

from matura.data.dedup.bands import SMALL, Ranks, candidates, pack, unpack
from matura.data.dedup.clusters import keepers, no_edges
from matura.data.dedup.exact import halves
from matura.data.dedup.shingles import (
    WORD,
    joined,
    runs,
    shingles,
    spaced,
    within,
    word_hashes,
    words,
    words_in_place,
)
from matura.data.dedup.signatures import Scheme, band_keys
from matura.data.dedup.verify import Shares
from matura.data.split import fingerprint


def test_words_are_folded() -> None:
    assert words("Don't stop_me — 3.5 times") == [b"don", b"t", b"stop_me", b"3", b"5", b"times"]
    assert words("Größe ﬁnal ÉTÉ") == ["grösse".encode(), b"final", "été".encode()]
    assert words("日本語 text") == [*(letter.encode() for letter in "日本語"), b"text"]


TEXTS = [
    "Plain, TEXT!\tand_more\x1cé — “Größe”…",
    "",
    "one\x00two\nTHREE 4.5",
    "…",
    "日本語 und Ä ฿5",
    "İstanbul e\u0301 ² ½ ﬁ",
    "".join(map(chr, range(0x20, 0x2FF))),
    "  ",
]


@pytest.mark.parametrize("written", TEXTS)
def test_words_are_the_matches_in_the_folded_text(written: str) -> None:
    folded = unicodedata.normalize("NFKC", written).casefold()
    assert words(written) == [word.encode() for word in WORD.findall(folded)]


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[1:2], TEXTS[:1], []])
def test_joined_words_are_in_their_places(texts: list[str]) -> None:
    found = joined([spaced(text) for text in texts])
    listed = [words(text) for text in texts]
    bounds = zip(found.start_W.tolist(), found.end_W.tolist(), strict=True)
    assert [found.bytes_C[start:end].tobytes() for start, end in bounds] == [
        w for each in listed for w in each
    ]
    assert found.count_D.tolist() == [len(each) for each in listed]
    assert found.column().to_pylist() == [b" ".join(each).decode() for each in listed]


@pytest.mark.parametrize("texts", [TEXTS, ["----", "====", "_", "", "A_b", "ab", "\ud800"], []])
def test_halves_are_those_of_the_fingerprint(texts: list[str]) -> None:
    high, low = halves(texts, [spaced(text) for text in texts])
    found = [f"{a:016x}{b:016x}" for a, b in zip(high.tolist(), low.tolist(), strict=True)]
    assert found == [fingerprint(text)[:32] for text in texts]


@pytest.mark.parametrize("written", ["Plain, TEXT!", "İstanbul ﬁnal ǅ ß", "日本語 und Ä", ""])
def test_words_in_place_are_one_for_each_match(written: str) -> None:
    assert len(words_in_place(written)) == len(WORD.findall(written))


def test_equal_runs_have_equal_hashes_wherever_they_are() -> None:
    (hashes, _) = word_hashes([b"x y z a b c d y z a".split()])
    found = runs(hashes, 3).tolist()
    assert found[1] == found[7]
    assert len(set(found)) == 7
    assert len(runs(hashes, 11)) == 0


def test_shingles_are_sets_of_each_text() -> None:
    words = joined([b"a b a b  a b", b"a", b"a b a", b"", b"c d e f", b"ab  a"])
    flat, found = shingles(words, 2)
    assert found.tolist() == [2, 0, 2, 0, 3, 1]
    assert flat[:2].tolist() == flat[2:4].tolist() == sorted(flat[:2].tolist())
    assert len(set(flat.tolist())) == 6
    counts = np.array([6, 1, 3, 0, 4])
    assert within(counts, 2).tolist() == [True] * 5 + [False, False, True, True, False] + [True] * 3


def test_a_shingle_is_the_same_in_any_company() -> None:
    alone, _ = shingles(joined([b"some words of a text"]), 3)
    first, _ = shingles(joined(["größe of others".encode(), b"", b"some  words of a text"]), 3)
    assert first[1:].tolist() == alone.tolist()


def test_band_keys_agree_as_often_as_theory_says() -> None:
    scheme = Scheme(words=1, bands=400, rows=1)
    first, second = "a b c d e f g h", "a b c d e f x y"  # 6 of 10
    keys = band_keys([first, second, first], scheme)
    assert (keys[0] == keys[2]).all()
    assert abs(float((keys[0] == keys[1]).mean()) - 0.6) < 0.1
    pairs = band_keys([first, second], Scheme(words=1, bands=200, rows=2))
    assert abs(float((pairs[0] == pairs[1]).mean()) - 0.36) < 0.12


def test_all_pairs_of_small_buckets_and_few_of_large_ones() -> None:
    keys = np.array([5, 5, 5, 7, 9, 9], np.uint64)
    ranks, none = np.array([4, 2, 0, 1, 3, 5]), np.zeros(6, bool)
    first, second = unpack(candidates(keys, ranks, none, 0))
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 2), (0, 4), (2, 4), (3, 5)]
    first, second = unpack(candidates(keys, ranks, none, 3))
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 4), (2, 4), (3, 5)]

    count = 500
    many = candidates(np.ones(count, np.uint64), np.arange(count), np.zeros(count, bool), 0)
    assert count * 8 < len(many) <= count * 16
    assert set(range(1, count)) <= set(unpack(many)[1].tolist())
    settled = np.ones(count, bool)
    assert len(candidates(np.ones(count, np.uint64), np.arange(count), settled, 0)) == 8 * 7 // 2
    small = candidates(np.ones(SMALL, np.uint64), np.arange(SMALL), np.ones(SMALL, bool), 0)
    assert len(small) == SMALL * (SMALL - 1) // 2


def test_nothing_makes_no_candidates() -> None:
    assert len(candidates(np.empty(0, np.uint64), np.empty(0, int), np.zeros(0, bool), 0)) == 0


def test_the_most_similar_kept_document_is_named() -> None:
    asked = []

    def compare(first: Ranks, second: Ranks) -> Shares:
        asked.extend(zip(first.tolist(), second.tolist(), strict=True))
        return np.where(second == 4, 0.82, 0.7)

    # 1 goes for 0; so 3 goes for 2 and not for 1, though 1 is nearer; 4 and 5 are similar to 1 only.
    pairs = pack(np.array([0, 0, 1, 1, 1, 2]), np.array([1, 3, 3, 4, 5, 3]))
    edges = no_edges().joined(pairs, np.array([0.9, 0.85, 0.99, 0.9, 0.9, 0.95]))
    keeper, share = keepers(edges, 6, compare, 0.8)
    assert asked == [(0, 4), (0, 5)]
    assert keeper.tolist() == [0, 0, 2, 2, 0, 5]
    assert share.tolist() == [1.0, 0.9, 1.0, 0.95, 0.82, 1.0]
