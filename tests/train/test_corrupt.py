"""Masks and spans: exact rates, words kept whole, nothing lost, and the same for a row wherever it stands."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from matura.core.errors import ArtifactError, MaturaError
from matura.model.attention import Packed
from matura.train.blocks import TokenBatch
from matura.train.corrupt import Corrupted, MaskedBatch, Masking, PairBatch, Spans, masking, spans
from tests.tiny_models import chatml
from tests.tokenizer.test_words import wordpiece

VOCABULARY, SPECIALS, MASK = 1000, 10, 4


def make_masking(seed: int = 0, **more: Any) -> Masking:
    special = np.arange(VOCABULARY) < SPECIALS
    return Masking(MASK, special, np.arange(SPECIALS, VOCABULARY), seed, **more)


def rows(count: int, length: int, seed: int = 0, low: int = SPECIALS) -> TokenBatch:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(low, VOCABULARY, (count, length + 1), generator=draw)
    return TokenBatch(ids[:, :-1], ids[:, 1:])


def changed(batch: MaskedBatch) -> torch.Tensor:
    """Where the targets are, [B, T]."""
    at = torch.zeros(batch.ids_BT.numel(), dtype=torch.bool)
    at[batch.where_N] = True
    return at.view(batch.ids_BT.shape)


class Endless:
    """Rows from a counter."""

    def __init__(self, count: int, length: int = 64, rank: int = 0, world: int = 1) -> None:
        self.count, self.length, self.rank, self.world, self.at = count, length, rank, world, 0

    def __iter__(self) -> Iterator[TokenBatch]:
        return self

    def __next__(self) -> TokenBatch:
        whole = rows(self.count * self.world, self.length, seed=self.at)
        self.at += 1
        mine = slice(self.rank * self.count, (self.rank + 1) * self.count)
        return TokenBatch(whole.ids_BT[mine], whole.targets_BT[mine])

    def state(self) -> dict[str, Any]:
        return {"at": self.at}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.at = state["at"]


def test_the_share_is_exact_and_what_is_no_target_is_untouched() -> None:
    batch = rows(400, 100)
    made = make_masking()(batch)
    assert changed(made).sum(1).unique().tolist() == [15]  # of each row, not only of all
    assert torch.equal(made.targets_N, batch.ids_BT.flatten()[made.where_N])
    assert torch.equal(made.ids_BT[~changed(made)], batch.ids_BT[~changed(made)])
    assert (made.weight, made.tokens) == (6000.0, 40_000)


def test_of_the_targets_80_percent_are_masked_10_random_and_10_kept() -> None:
    made = make_masking()(rows(2000, 100))
    seen = made.ids_BT.flatten()[made.where_N]
    masked, kept = seen == MASK, seen == made.targets_N
    n, lucky = len(seen), 0.1 / (VOCABULARY - SPECIALS)  # a random token may be the right one
    for found, expected in ((masked, 0.8), (kept, 0.1 + lucky)):
        spread = 4 * (expected * (1 - expected) / n) ** 0.5
        assert abs(found.float().mean().item() - expected) < spread
    others = seen[~masked & ~kept]
    assert others.min() >= SPECIALS  # never a special token
    assert len(others.unique()) > 900  # but any other


def test_where_the_share_is_no_whole_number_it_is_exact_in_the_mean() -> None:
    made = make_masking()(rows(4000, 10))  # 1.5 targets a row
    found = changed(made).sum(1)
    assert sorted(found.unique().tolist()) == [1, 2]
    assert found.float().mean().item() == pytest.approx(1.5, abs=0.04)


def test_special_tokens_are_neither_masked_nor_counted() -> None:
    batch = rows(300, 120)
    batch.ids_BT[:, ::6] = 2  # 20 of 120
    made = make_masking()(batch)
    assert not changed(made)[:, ::6].any()
    assert changed(made).sum(1).unique().tolist() == [15]
    nothing = make_masking()(TokenBatch(torch.full((2, 5), 2), torch.full((2, 5), 2)))
    assert (len(nothing.where_N), nothing.weight) == (0, 0.0)


def words(batch: TokenBatch, starts: np.ndarray) -> list[list[list[int]]]:
    """Positions of every word of every row, by a plain loop."""
    found = []
    for row in batch.ids_BT.tolist():
        groups: list[list[int]] = []
        last_special = True
        for at, id in enumerate(row):
            if id < SPECIALS:
                last_special = True
                continue
            if starts[id] or last_special:
                groups.append([])
            groups[-1].append(at)
            last_special = False
        found.append(groups)
    return found


@pytest.mark.parametrize("packed", [False, True])
def test_whole_words_are_masked_whole_at_the_same_share(packed: bool) -> None:
    starts = np.arange(VOCABULARY) % 3 == 0
    batch = rows(600, 60, low=0)
    if packed:
        flat = (x.reshape(1, -1) for x in (batch.ids_BT, batch.targets_BT))
        ids, targets = flat
        made = make_masking(starts_word_V=starts)(TokenBatch(ids, targets, mask=Packed((60,) * 600)))
        at = changed(made).view(600, 60)
    else:
        at = changed(make_masking(starts_word_V=starts)(batch))
    longest = 0
    for row, groups in zip(at.tolist(), words(batch, starts), strict=True):
        assert sum(row) == sum(row[i] for group in groups for i in group)
        for group in groups:
            assert len({row[i] for i in group}) == 1
            longest = max(longest, len(group)) if row[group[0]] else longest
    assert longest > 3
    counted = (batch.ids_BT >= SPECIALS).sum().item()
    assert at.sum().item() / counted == pytest.approx(0.15, abs=0.005)
    pieces = changed(make_masking()(batch))  # the control: without the table words are torn
    assert any(
        len({row[i] for i in group}) == 2
        for row, groups in zip(pieces.tolist(), words(batch, starts), strict=True)
        for group in groups
    )


def test_packed_sequences_are_masked_as_they_are_alone() -> None:
    batch = rows(1, 90)
    packed = make_masking()(TokenBatch(batch.ids_BT, batch.targets_BT, mask=Packed((40, 20, 30))))
    assert packed.mask == Packed((40, 20, 30))
    alone = [
        make_masking()(TokenBatch(batch.ids_BT[:, a:b], batch.targets_BT[:, a:b])).ids_BT
        for a, b in ((0, 40), (40, 60), (60, 90))
    ]
    assert torch.equal(packed.ids_BT, torch.cat(alone, 1))


def make_spans(seed: int = 0, **more: Any) -> Spans:
    return Spans(tuple(range(2000, 2100)), 1, 0, seed, **more)


def rebuilt(source: list[int], target: list[int]) -> list[int]:
    """The row out of a source and its target."""
    assert source[-1] == target[-1] == 1
    parts: dict[int, list[int]] = {}
    last = -1
    for id in target[:-1]:
        if id >= 2000:
            last = id
            parts[id] = []
        else:
            parts[last].append(id)
    found: list[int] = []
    for id in source[:-1]:
        found += parts.pop(id) if id >= 2000 else [id]
    assert not parts
    return found


@pytest.mark.parametrize(
    ("length", "noise", "count"), [(128, 19, 6), (512, 77, 26), (20, 3, 1), (4, 1, 1), (2, 1, 1)]
)
def test_source_and_target_of_spans_rebuild_the_row(length: int, noise: int, count: int) -> None:
    batch = rows(50, length)
    made = make_spans()(batch)
    assert made.source_BS.shape == (50, length - noise + count + 1)
    assert made.targets_BT.shape == (50, noise + count + 1)
    assert made.source_mask_BS is None
    assert made.weight == made.targets_BT.numel()
    assert made.tokens == made.source_BS.numel() + made.targets_BT.numel()
    assert torch.equal(made.ids_BT[:, 1:], made.targets_BT[:, :-1])
    assert made.ids_BT[:, 0].unique().tolist() == [0]
    for row, source, target in zip(batch.ids_BT, made.source_BS, made.targets_BT, strict=True):
        assert rebuilt(source.tolist(), target.tolist()) == row.tolist()
        assert [id for id in target.tolist() if id >= 2000] == list(range(2000, 2000 + count))


def test_every_division_into_spans_is_equally_likely() -> None:
    made = make_spans(density=0.4, mean=2.0)(
        rows(6000, 10)
    )  # 4 tokens in 2 spans: 3 ways; 6 kept in 2: 5 ways
    ways = np.unique((made.source_BS >= 2000).numpy(), axis=0, return_counts=True)[1]
    assert len(ways) == 5
    assert ((ways - 1200) ** 2 / 1200).sum() < 18.5  # chi-square, 4 degrees of freedom, p = 0.001
    lengths = np.unique((made.targets_BT >= 2000).numpy(), axis=0, return_counts=True)[1]
    assert len(lengths) == 3
    assert ((lengths - 2000) ** 2 / 2000).sum() < 13.8


def test_spans_need_sentinels_long_rows_and_joined_documents() -> None:
    with pytest.raises(MaturaError, match="6 spans, and the tokenizer has 2 sentinels"):
        Spans((5, 6), 1, 0, 0)(rows(1, 128))
    with pytest.raises(MaturaError, match="too short"):
        make_spans()(rows(1, 1))
    with pytest.raises(MaturaError, match="documents=joined"):
        make_spans()(TokenBatch(*(x.reshape(1, -1) for x in (rows(2, 4).ids_BT,) * 2), mask=Packed((4, 4))))


@pytest.mark.parametrize("corruption", [make_masking(seed=5), make_spans(seed=5)])
def test_ranks_and_a_resumed_run_see_the_same_rows_corrupted_in_the_same_way(
    corruption: Masking | Spans,
) -> None:
    alone = Corrupted(Endless(8), corruption)
    ranks = [Corrupted(Endless(4, rank=rank, world=2), corruption) for rank in (0, 1)]
    for _ in range(3):
        whole, *halves = next(alone), *(next(rank) for rank in ranks)
        assert torch.equal(whole.ids_BT, torch.cat([half.ids_BT for half in halves]))
        if isinstance(whole, PairBatch):
            assert torch.equal(whole.source_BS, torch.cat([half.source_BS for half in halves]))
    saved = json.loads(json.dumps(alone.state()))
    expected = next(alone)
    resumed = Corrupted(Endless(8), corruption)
    resumed.restore(saved)
    assert torch.equal(next(resumed).ids_BT, expected.ids_BT)


def test_another_seed_corrupts_otherwise_and_does_not_resume() -> None:
    batch = rows(4, 64)
    assert not torch.equal(make_masking(seed=1)(batch).ids_BT, make_masking(seed=2)(batch).ids_BT)
    assert not torch.equal(make_spans(seed=1)(batch).source_BS, make_spans(seed=2)(batch).source_BS)
    saved = Corrupted(Endless(4), make_masking(seed=1)).state()
    with pytest.raises(ArtifactError, match="seed was 1 and is 2"):
        Corrupted(Endless(4), make_masking(seed=2)).restore(saved)
    with pytest.raises(ArtifactError, match="another objective"):
        Corrupted(Endless(4), make_spans(seed=1)).restore(saved)


def test_a_tokenizer_without_mask_or_sentinels_is_refused() -> None:
    with pytest.raises(MaturaError, match="no mask token"):
        masking(chatml().tokenizer, 400, 0)
    with pytest.raises(MaturaError, match="<extra_id_0>"):
        spans(chatml().tokenizer, 0, 0)


def test_a_rule_for_a_tokenizer_knows_its_special_tokens() -> None:
    made = masking(wordpiece(), vocabulary=12, seed=0, whole_words=True)
    assert made.mask_id == 2
    assert np.flatnonzero(made.special_V).tolist() == [0, 1, 2, 7, 8, 9]
    assert made.replacements.tolist() == [3, 4, 5, 6]
    assert made.starts_word_V is not None
    assert np.flatnonzero(~made.starts_word_V).tolist() == [4, 5]
    assert len(made.special_V) == 12
    other = spans(wordpiece(), start_id=0, seed=0)
    assert (other.sentinels, other.end_id) == ((8, 9), 7)
