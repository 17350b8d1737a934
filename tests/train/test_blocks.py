"""Batches of blocks: shuffled over everything, mixed as asked, the same for any ranks, resumed where they were."""

import json
import math
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from matura.core.errors import ArtifactError, MaturaError
from matura.data.shards import TokenShards
from matura.model import config as c
from matura.model.attention import Packed
from matura.model.transformer import Transformer
from matura.train.blocks import HeldoutBatch, TokenBatch, TokenBatches, held_out
from tests.token_shards import write

SETTINGS: dict[str, Any] = {"rows": 4, "length": 8, "seed": 3}


def rising(source: str, first: int, documents: int, length: int = 10) -> list[tuple[str, list[int]]]:
    """Documents whose tokens count on, so that a token tells its place."""
    return [(source, list(range(first + n * length, first + (n + 1) * length))) for n in range(documents)]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenShards:
    """Source a: ids 0..399, over two shards. Source b: ids 1000..1099."""
    train = [rising("a", 0, 25), rising("b", 1000, 10) + rising("a", 250, 15)]
    return write(tmp_path_factory.mktemp("tokens"), train, rising("a", 500, 3), vocabulary=2000)


def rows(batch: TokenBatch) -> list[list[int]]:
    return torch.cat([batch.ids_BT, batch.targets_BT[:, -1:]], 1).tolist()


def test_an_epoch_is_every_block_once(tokens: TokenShards) -> None:
    batches = TokenBatches(tokens, rows=1, length=8, seed=3, weights={"a": 1})
    blocks = 400 // 8
    epochs = [[rows(next(batches))[0] for _ in range(blocks)] for _ in range(3)]
    for epoch in epochs:
        ids = [id for row in epoch for id in row[:-1]]
        assert sorted(ids) == list(range(400))
        assert all(b == (a + 1) % 400 for row in epoch for a, b in pairwise(row))
    starts = [[row[0] for row in epoch] for epoch in epochs]
    assert len({start % 8 for epoch in starts for start in epoch}) > 1  # another cut in another epoch
    assert starts[0] != sorted(starts[0])
    assert batches.epochs == {"a": 3.0}


def test_targets_follow(tokens: TokenShards) -> None:
    batch = next(TokenBatches(tokens, **SETTINGS))
    assert batch.ids_BT.shape == batch.targets_BT.shape == (4, 8)
    assert batch.ids_BT.dtype == torch.int64
    assert batch.ids_BT[:, 1:].tolist() == batch.targets_BT[:, :-1].tolist()
    assert (batch.weight, batch.tokens, batch.mask) == (32.0, 32, None)


def test_the_mixture_is_by_tokens(tokens: TokenShards) -> None:
    batches = TokenBatches(tokens, **SETTINGS, weights={"a": 0.3, "b": 0.7})
    seen = Counter("b" if row[0] >= 1000 else "a" for batch in islice(batches, 50) for row in rows(batch))
    assert seen == {"a": 60, "b": 140}
    assert batches.epochs == {"a": 60 / 50, "b": pytest.approx(140 / 12)}
    only = TokenBatches(tokens, **SETTINGS, weights={"b": 2.0})
    assert min(id for batch in islice(only, 20) for row in rows(batch) for id in row) >= 1000


@pytest.mark.parametrize("documents", ["joined", "separate"])
@pytest.mark.parametrize("weights", [None, {"a": 1.0, "b": 0.5}])
def test_ranks_see_together_what_one_sees(tokens: TokenShards, documents: Any, weights: Any) -> None:
    more = {"length": 8, "seed": 3, "documents": documents, "weights": weights}
    one = TokenBatches(tokens, rows=8, **more)
    two = [TokenBatches(tokens, rows=4, rank=rank, world=2, **more) for rank in (0, 1)]
    short = TokenBatches(tokens, rows=4, **more)
    for _ in range(30):
        whole = next(one)
        for parts in ([next(rank) for rank in two], [next(short), next(short)]):
            assert torch.equal(whole.ids_BT.flatten(), torch.cat([part.ids_BT.flatten() for part in parts]))
            assert sum(part.weight for part in parts) == whole.weight
    assert one.state() == two[0].state() == two[1].state() == short.state()


@pytest.mark.parametrize("steps", [0, 1, 7, 40])
def test_resumed_is_uninterrupted(tokens: TokenShards, steps: int) -> None:
    more = {**SETTINGS, "weights": {"a": 1.0, "b": 3.0}}
    batches = TokenBatches(tokens, **more)
    list(islice(batches, steps))
    state = json.loads(json.dumps(batches.state()))
    again = TokenBatches(tokens, **more)
    list(islice(again, 3))
    again.restore(state)
    for _ in range(5):
        assert rows(next(again)) == rows(next(batches))
    assert again.epochs == batches.epochs


def test_a_position_in_other_data_is_refused(tokens: TokenShards) -> None:
    state = TokenBatches(tokens, **SETTINGS).state()
    with pytest.raises(ArtifactError, match="seed was 3 and is 4"):
        TokenBatches(tokens, **{**SETTINGS, "seed": 4}).restore(state)
    with pytest.raises(ArtifactError, match="other data"):
        TokenBatches(tokens, **SETTINGS, weights={"a": 1}).restore(state)


def test_seeds_give_other_orders(tokens: TokenShards) -> None:
    first, second = (rows(next(TokenBatches(tokens, **{**SETTINGS, "seed": seed}))) for seed in (3, 4))
    assert first != second


def test_too_little_text_says_how_much_is_needed(tmp_path: Path) -> None:
    made = write(tmp_path, [rising("a", 0, 1), rising("b", 500, 4)])
    with pytest.raises(MaturaError, match=r"holds 50 tokens .* in 5 documents, and one batch needs 65"):
        TokenBatches(made, rows=8, length=8, seed=0)
    with pytest.raises(MaturaError, match=r"a holds 10 tokens in 1 documents, and one row needs 17"):
        TokenBatches(made, rows=1, length=16, seed=0, weights={"a": 1, "b": 1})
    with pytest.raises(MaturaError, match="no source 'c'"):
        TokenBatches(made, rows=1, length=8, seed=0, weights={"c": 1})
    empty = write(tmp_path / "empty", [[]])
    with pytest.raises(MaturaError, match="holds 0 tokens"):
        TokenBatches(empty, rows=1, length=8, seed=0)


def network(vocabulary: int) -> Transformer:
    decoder = c.StackConfig(
        layers=2,
        width=16,
        attention=c.Attention(heads=2, kv_heads=2, head_width=8),
        mlp=c.SwiGLU(hidden=24),
        norm=c.RMSNorm(eps=1e-5),
        position=c.Rope(theta=10_000.0),
    )
    config = c.ModelConfig(
        vocabulary=vocabulary, context=64, decoder=decoder, head=c.LanguageHead(tied=True), family="llama"
    )
    return Transformer(config).initialize(0).double().eval()


def losses(model: Transformer, batch: TokenBatch) -> torch.Tensor:
    """[tokens], zero where the weight is."""
    with torch.no_grad():
        hidden = model.features(model.decode(batch.ids_BT, mask=batch.mask)).flatten(0, 1)
        each = F.cross_entropy(model.unembedding.logits(hidden), batch.targets_BT.flatten(), reduction="none")
    return each * (1 if batch.weights_BT is None else batch.weights_BT.flatten())


@pytest.mark.parametrize("begin", [None, 99])
def test_separate_documents_do_not_see_each_other(tmp_path: Path, begin: int | None) -> None:
    lead = [] if begin is None else [begin]
    documents = [("a", [*lead, *range(n, n + 3 + n % 4)]) for n in range(1, 60, 6)]
    made = write(tmp_path, [documents], vocabulary=100, begin=begin)
    batch = next(TokenBatches(made, rows=3, length=12, seed=1, documents="separate"))
    assert isinstance(batch.mask, Packed)
    assert batch.ids_BT.shape == (1, 36) == (1, sum(batch.mask.lengths))
    assert batch.weights_BT is not None
    model = network(100)
    together, at = losses(model, batch), 0
    starts = {ids[0] for _, ids in documents}
    for length in batch.mask.lengths:
        ids, targets = batch.ids_BT[:, at : at + length], batch.targets_BT[:, at : at + length]
        alone = losses(model, TokenBatch(ids, targets, batch.weights_BT[:, at : at + length]))
        assert torch.allclose(together[at : at + length], alone)
        inside = [id for id in ids[0, 1:].tolist() if id in starts]
        assert not inside, "a document begins within a sequence"
        for i, target in enumerate(targets[0].tolist()):
            crossing = target in starts and i == length - 1
            weight = float(batch.weights_BT[0, at + i])
            assert weight == (1.0 if not crossing or begin is not None else 0.0)
        at += length
    joined = next(TokenBatches(made, rows=3, length=12, seed=1))
    assert torch.equal(joined.ids_BT.flatten(), batch.ids_BT.flatten())
    assert not torch.allclose(losses(model, joined), together)  # there, documents do see each other


def plain_nats(model: Transformer, documents: list[list[int]], length: int) -> float:
    """Each document by itself, cut where the windows cut it when nothing overlaps."""
    total = 0.0
    for ids in documents:
        for start in range(0, len(ids) - 1, length):
            piece = torch.tensor([ids[start : start + length + 1]])
            total += float(losses(model, TokenBatch(piece[:, :-1], piece[:, 1:])).sum())
    return total


@pytest.mark.parametrize(("begin", "end"), [(99, None), (None, 99), (98, 99), (None, None)])
@pytest.mark.parametrize("rows_", [1, 3])
def test_held_out_tokens_are_read_once(
    tmp_path: Path, begin: int | None, end: int | None, rows_: int
) -> None:
    bare = [list(range(n)) for n in (1, 3, 8, 9, 26)]
    around = [[*([] if begin is None else [begin]), *ids, *([] if end is None else [end])] for ids in bare]
    made = write(
        tmp_path, [rising("a", 0, 2)], [("a", ids) for ids in around], vocabulary=100, begin=begin, end=end
    )
    lead = [] if begin is not None or end is None else [end]
    read = [lead + ids for ids in around]
    found = list(held_out(made, length=8, rows=rows_))
    targets = Counter(id for one in found for id in one.batch.targets_BT.flatten().tolist())
    assert targets == Counter(id for ids in read for id in ids[1:])
    assert sum(one.bytes for one in found) == sum(3 * len(ids) for ids in around)
    assert all(one.batch.tokens <= 8 * rows_ for one in found)
    model = network(100)
    nats = sum(float(losses(model, one.batch).sum()) for one in found)
    assert nats == pytest.approx(plain_nats(model, read, 8), rel=1e-9)
    assert nats / math.log(2) > 0


@pytest.mark.parametrize("overlap", [1, 4, 7])
def test_overlap_is_context_that_is_not_scored(tmp_path: Path, overlap: int) -> None:
    made = write(tmp_path, [rising("a", 0, 2)], [("a", list(range(50)))], vocabulary=100)
    found = list(held_out(made, length=8, overlap=overlap))
    scored = Counter[int]()
    for one in found:
        assert one.batch.weights_BT is not None
        assert one.batch.tokens <= 8
        scored.update(one.batch.targets_BT[one.batch.weights_BT > 0].tolist())
        first = int(one.batch.ids_BT[0, 0])
        assert one.batch.weights_BT[0].tolist() == [
            float(first == 0 or i >= overlap) for i in range(one.batch.tokens)
        ]
    assert scored == Counter(range(1, 50))


def test_limit_ends_after_a_document(tokens: TokenShards) -> None:
    def read(limit: int | None) -> list[HeldoutBatch]:
        return list(held_out(tokens, length=8, limit=limit))

    assert [sum(one.bytes for one in read(limit)) for limit in (1, 10, 11, None)] == [30, 30, 60, 90]
