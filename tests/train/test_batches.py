"""Packing, cutting and mixing: nothing lost, nothing twice, and a position that comes back."""

import json
import random

import pytest
import torch

from matura.model.attention import Packed, spans
from matura.train.batches import (
    Example,
    PackedBatch,
    PackedBatches,
    Rows,
    chunk_document,
    pack,
)


def examples(count: int, seed: int = 0, longest: int = 30) -> list[Example]:
    """Random ids and ragged masks; some have nothing to train."""
    draw = random.Random(seed)
    made = []
    for n in range(count):
        length = draw.randrange(2, longest)
        weights = tuple((draw.random() < 0.5) * (0.5 + n % 3) for _ in range(length))
        made.append(Example(tuple(draw.randrange(1, 97) for _ in range(length)), weights))
    return made


def unpack(batch: PackedBatch) -> list[list[int]]:
    """The ids of each sequence in a packed row."""
    return [batch.ids_1T[0, start:end].tolist() for start, end in spans(batch.mask.lengths)]


def test_a_packed_row_holds_every_example_and_aims_at_its_trained_tokens() -> None:
    made = [Example((5, 6, 7, 8), (True, False, True, True)), Example((9, 10), (0, 2.5))]
    batch = pack(made)
    assert batch.ids_1T.tolist() == [[5, 6, 7, 9]]
    assert batch.mask == Packed((3, 1))
    assert unpack(batch) == [[5, 6, 7], [9]]
    assert batch.where_N.tolist() == [1, 2, 3]
    assert batch.targets_N.tolist() == [7, 8, 10]
    assert batch.weights_N.tolist() == [1.0, 1.0, 2.5]
    assert (batch.weight, batch.tokens) == (4.5, 4)


def test_a_token_is_trained_by_its_place_whatever_its_id() -> None:
    """T4: an end token that is also the padding keeps its loss, and an answer of it alone has one position."""
    end = 0
    batch = pack([Example((7, 8, 5, 6, end), (0, 0, 1, 1, 1)), Example((7, end), (0, 1))])
    assert batch.targets_N.tolist() == [5, 6, end, end]
    assert batch.where_N.tolist() == [1, 2, 3, 4]
    assert batch.ids_1T[0, batch.where_N].tolist() == [8, 5, 6, 7]


def test_random_rows_come_apart_as_they_went_in() -> None:
    made = examples(40)
    batch = pack(made)
    assert unpack(batch) == [list(example.ids[:-1]) for example in made]
    expected = [(e.ids[i], e.weights[i]) for e in made for i in range(1, len(e.ids)) if e.mask[i]]
    assert list(zip(batch.targets_N.tolist(), batch.weights_N.tolist(), strict=True)) == expected
    before = [e.ids[i - 1] for e in made for i in range(1, len(e.ids)) if e.mask[i]]
    assert batch.ids_1T[0, batch.where_N].tolist() == before


@pytest.mark.parametrize("begin", [None, 0])
@pytest.mark.parametrize("length", [2, 3, 8, 50])
def test_every_token_of_a_document_is_trained_exactly_once(begin: int | None, length: int) -> None:
    for size in range(1, 140):
        ids = list(range(1, size + 1))
        made = chunk_document(ids, length, begin)
        if begin is not None and length == 2:
            assert made == []  # no room for a token and what it is predicted from
            continue
        trained = [e.ids[i] for e in made for i in range(len(e.ids)) if e.mask[i]]
        assert trained == (ids if begin is not None else ids[1:])
        assert all(e.ids[0] == begin for e in made if begin is not None)
        sizes = [len(e.ids) - 1 for e in made]
        assert not sizes or max(sizes) <= length - (begin is not None)
        new = [size + (begin is None and n == 0) for n, size in enumerate(sizes)]
        assert not new or max(new) - min(new) <= 1
        assert all(not e.mask[0] for e in made)


def test_rows_are_seeded_and_every_epoch_shows_everything_in_another_order() -> None:
    made = examples(300)
    trained = [e for e in made if e.trained]
    rows = Rows(made, tokens=64, seed=3)
    epochs: list[list[Example]] = [[], []]
    for epoch in epochs:
        started = rows.epochs
        while len(epoch) < len(trained):
            epoch += rows.next()
        assert started + 1 == rows.epochs or started + 1 == pytest.approx(rows.epochs)
        assert sorted(epoch, key=repr) == sorted(trained, key=repr)
    assert epochs[0] != epochs[1]
    again = Rows(made, tokens=64, seed=3)
    first = again.next()
    assert first == epochs[0][: len(first)]
    assert Rows(made, tokens=64, seed=4).next() != first
    sizes = [sum(len(e.ids) - 1 for e in again.next()) for _ in range(10)]
    assert max(sizes) <= 64
    assert sum(sizes) > 0.9 * 640  # best fit wastes little
    assert rows.fill == rows.mean_tokens / 64
    assert 0.9 < rows.fill <= 1


def test_a_position_comes_back_from_everywhere() -> None:
    made = examples(20)
    rows = Rows(made, tokens=40, seed=1)
    states, seen = [], []
    for _ in range(25):  # over the ends of epochs, too
        states.append(json.loads(json.dumps(rows.state())))
        seen.append(rows.next())
    assert rows.epochs > 2
    for start, state in enumerate(states):
        again = Rows(made, tokens=40, seed=1)
        again.restore(state)
        assert [again.next() for _ in range(25 - start)] == seen[start:]


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(ValueError, match="anything to train"):
        Rows([Example((1, 2), (True, False))], tokens=8, seed=0)


def test_every_batch_is_the_same_mixture_and_resumes() -> None:
    def sources() -> list[Rows]:
        return [Rows(examples(30), tokens=60, seed=0), Rows(examples(9, seed=5), tokens=20, seed=1)]

    batches = PackedBatches(sources())
    assert iter(batches) is batches
    states, rows = [], []
    for _ in range(12):
        states.append(json.loads(json.dumps(batches.state())))
        rows.append(next(batches))
    apart = sources()
    for batch in rows:
        main, rest = apart[0].next(), apart[1].next()
        assert unpack(batch) == [list(e.ids[:-1]) for e in [*main, *rest]]
    again = PackedBatches(sources())
    for start in (0, 1, 5, 11):
        again.restore(states[start])
        for expected in rows[start:]:
            assert torch.equal(next(again).ids_1T, expected.ids_1T)
    assert batches.mean_tokens == sum(source.mean_tokens for source in batches.sources)
    with pytest.raises(ValueError, match="argument"):
        again.restore({"sources": states[0]["sources"][:1]})
