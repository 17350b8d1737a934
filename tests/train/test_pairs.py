"""Pairs to batches: read from conversations, padded without effect, dealt to ranks, and resumed."""

import json
import random
from typing import Any

import pytest
import torch

from matura.core.errors import ArtifactError, MaturaError
from matura.core.records import CUT, Conversation
from matura.train.corrupt import PairBatch
from matura.train.pairs import Pair, PairBatches, from_conversations, pad
from tests.tiny_models import chatml, talk
from tests.tokenizer.test_words import wordpiece

END = 7


def said(*messages: tuple[str, str], cut: bool = False) -> Conversation:
    rows = [{"role": role, "content": content} for role, content in messages]
    rows[-1] |= CUT if cut else {}
    return Conversation("c", tuple(rows))


def some_pairs(count: int, seed: int = 0) -> list[Pair]:
    draw = random.Random(seed)

    def ids(number: int) -> tuple[int, ...]:
        return (*(draw.randrange(10, 90) for _ in range(draw.randrange(1, 20))), 1000 + number, END)

    return [Pair(ids(n), ids(n)) for n in range(count)]


def seen(batch: PairBatch) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The pairs of a batch that count, without padding."""
    found = []
    for i in range(len(batch.source_BS)):
        real = batch.weights_BT[i] > 0
        if real.any():
            source = batch.source_BS[i]
            kept = source if batch.source_mask_BS is None else source[batch.source_mask_BS[i]]
            found.append((tuple(kept.tolist()), tuple(batch.targets_BT[i][real].tolist())))
    return found


def numbers(batch: PairBatch) -> list[int]:
    return sorted(source[-2] - 1000 for source, _ in seen(batch))


def test_the_first_question_and_its_answer_become_a_pair_with_end_tokens() -> None:
    rows = [
        said(("system", "."), ("user", "play ."), ("assistant", "plays"), ("user", "."), ("assistant", ".")),
        said(("user", "."), ("assistant", "playing"), cut=True),
        said(("assistant", "play")),
        Conversation("text", (), "play"),
    ]
    found = from_conversations(rows, wordpiece(), source=5, target=5)
    assert found.pairs == (Pair((3, 6, END), (3, 5, END)), Pair((6, END), (3, 4)))
    assert (found.cut, found.long, found.others) == (0, 0, 2)


def test_long_sources_are_cut_and_long_targets_left_out() -> None:
    rows = [
        said(("user", ". . . . play"), ("assistant", ".")),  # 5 + 1 tokens
        said(("user", ". . . ."), ("assistant", ".")),  # 4 + 1: fits
        said(("user", "."), ("assistant", ". . . play")),  # 4 + 1
    ]
    found = from_conversations(rows, wordpiece(), source=5, target=4)
    assert found.pairs == (Pair((6, 6, 6, 6, END), (6, END)), Pair((6, 6, 6, 6, END), (6, END)))
    assert (found.cut, found.long, found.others) == (1, 1, 0)
    with pytest.raises(MaturaError, match="no pairs to learn from: 1 rows"):
        from_conversations(rows[2:], wordpiece(), source=5, target=4)


def test_a_tokenizer_without_an_end_token_is_refused() -> None:
    tokenizer = wordpiece()
    tokenizer.eos_id = None
    with pytest.raises(MaturaError, match="no end token"):
        from_conversations([talk(1)], tokenizer, source=9, target=9)
    assert from_conversations([talk(1)], chatml().tokenizer, source=99, target=99).pairs


def test_padding_stands_right_and_counts_nothing() -> None:
    batch = pad([Pair((5, 6, END), (8, END)), Pair((5, END), (8, 9, END))], start=2, padding=3)
    assert batch.source_BS.tolist() == [[5, 6, END], [5, END, 3]]
    assert batch.source_mask_BS is not None
    assert batch.source_mask_BS.tolist() == [[True] * 3, [True, True, False]]
    assert batch.ids_BT.tolist() == [[2, 8, END], [2, 8, 9]]
    assert batch.targets_BT.tolist() == [[8, END, 3], [8, 9, END]]
    assert batch.weights_BT.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert (batch.weight, batch.tokens) == (5.0, 10)
    assert pad([Pair((5, END), (8, END))], start=2, padding=3).source_mask_BS is None


def batches(pairs: list[Pair], **more: Any) -> PairBatches:
    return PairBatches(pairs, **{"tokens": 200, "start": 2, "seed": 0} | more)


def test_an_epoch_has_every_pair_once_in_batches_of_similar_lengths() -> None:
    pairs = some_pairs(500)
    made = batches(pairs)
    found, used, room = [], 0, 0
    while made.epochs < 1:
        batch = next(made)
        found += seen(batch)
        assert batch.source_BS.numel() + batch.targets_BT.numel() <= 200
        used, room = used + batch.tokens, room + batch.source_BS.numel() + batch.targets_BT.numel()
    assert sorted(found) == sorted((pair.source, pair.target) for pair in pairs)
    assert used / room > 0.85
    assert made.mean_tokens == pytest.approx(used / len(made._plan))
    first = numbers(next(batches(pairs)))
    assert numbers(next(made)) != first  # the next epoch comes in another order
    assert numbers(next(batches(pairs, seed=1))) != first


def test_a_pair_longer_than_a_batch_comes_alone() -> None:
    long = Pair(tuple(range(300)), (1, END))
    made = batches([*some_pairs(3), long])
    found = [next(made) for _ in range(2)]
    assert sorted(len(batch.source_BS) for batch in found) == [1, 3]


@pytest.mark.parametrize("world", [2, 3, 7])
def test_ranks_share_what_one_rank_would_see(world: int) -> None:
    pairs = some_pairs(60)
    alone = batches(pairs)
    ranks = [batches(pairs, shares=world, rank=rank, world=world) for rank in range(world)]
    idle = 0
    while alone.epochs < 2:
        whole, parts = next(alone), [next(rank) for rank in ranks]
        assert sorted(n for part in parts for n in numbers(part)) == numbers(whole)
        assert sum(part.weight for part in parts) == whole.weight
        idle += sum(part.weight == 0 for part in parts)
    assert (idle > 0) == (world == 7)  # some batches have fewer pairs than ranks
    assert {json.dumps(rank.state()) for rank in ranks} == {json.dumps(alone.state())}


@pytest.mark.parametrize(
    ("world", "shares", "passes"), [(1, 3, 12), (2, 1, 2), (4, 1, 1), (4, 2, 2), (3, 3, 4), (8, 2, 1)]
)
def test_an_update_of_whole_groups_has_the_same_pairs_for_any_ranks_and_passes(
    world: int, shares: int, passes: int
) -> None:
    pairs = some_pairs(60)
    alone = batches(pairs)
    ranks = [batches(pairs, shares=shares, rank=rank, world=world) for rank in range(world)]
    while alone.epochs < 3:
        whole = [next(alone) for _ in range(4)]
        parts = [next(rank) for _ in range(passes) for rank in ranks]
        found, expected = (sorted(n for one in some for n in numbers(one)) for some in (parts, whole))
        assert found == expected
        assert {json.dumps(rank.state()) for rank in ranks} == {json.dumps(alone.state())}


def test_in_the_middle_of_a_group_other_shares_leave_no_pair_out() -> None:
    pairs = some_pairs(60)
    halves, whole = batches(pairs, shares=2), batches(pairs)
    first, group = numbers(next(halves)), numbers(next(whole))
    saved = json.loads(json.dumps(halves.state()))
    for shares, count, left in ((1, 1, group), (2, 1, sorted({*group} - {*first})), (4, 4, group)):
        other = batches(pairs, shares=shares)
        other.restore(saved)
        found = sorted(n for _ in range(count) for n in numbers(next(other)))
        assert found == left
    assert {*first} < {*group}


def test_a_resumed_run_goes_on_where_it_was_and_refuses_other_data() -> None:
    pairs = some_pairs(50)
    made = batches(pairs)
    for _ in range(30):
        next(made)
    saved = json.loads(json.dumps(made.state()))
    expected = [next(made) for _ in range(20)]
    again = batches(pairs)
    again.restore(saved)
    for batch in expected:
        assert torch.equal(next(again).source_BS, batch.source_BS)
    for other in (batches(some_pairs(50, seed=1)), batches(pairs, tokens=100), batches(pairs, seed=1)):
        with pytest.raises(ArtifactError, match="other data"):
            other.restore(saved)


def test_no_pairs_and_no_such_rank_are_mistakes() -> None:
    with pytest.raises(ValueError, match="0 pairs"):
        batches([])
    with pytest.raises(ValueError, match="rank 2 of 2"):
        batches(some_pairs(3), rank=2, world=2)
