"""What a run is made of: the portions of an update, batches that any number of ranks share, looks."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from matura.core import pretrain_settings as settings
from matura.core.records import Conversation
from matura.data.shards import TokenShards
from matura.model.shape import model_config
from matura.train import pretraining
from matura.train.mixture import Mixture
from matura.train.pretraining import Material, Portions, Task
from matura.train.ranks import ALONE, Alone
from tests.stages.test_pretrain import pair, with_roles
from tests.token_shards import write
from tests.train.test_pairs import seen


def material(pairs: list[Conversation], heldout: list[Conversation]) -> Material:
    """Pairs alone: `translate` reads nothing else."""
    return Material(cast(TokenShards, None), with_roles(), tuple(pairs), tuple(heldout))


def task(**shares: float) -> Task:
    return Task(cast(Any, shares), settings.Masking(), settings.Spans(), "joined", {})


def test_a_look_at_pairs_ends_with_the_tokens_that_it_may_read() -> None:
    given = material([pair(0)], [pair(n) for n in range(120)])
    (look,) = pretraining.looks(given, task(translate=1.0), 32, 4, ALONE, "cpu").values()
    seen: list[Any] = []

    def compute(function: Any, batch: Any) -> torch.Tensor:
        seen.append(batch)
        return torch.zeros(())

    def read(tokens: int | None) -> list[int]:
        seen.clear()
        look(compute, tokens)
        return [batch.tokens for batch in seen]

    whole, some = read(None), read(200)
    assert sum(some) >= 200 > sum(some[:-1])
    assert some == whole[: len(some)] == read(200)
    assert sum(whole) > 2 * sum(some)


class Rank(Alone):
    """One of several, as far as batches are concerned."""

    def __init__(self, rank: int, world: int) -> None:
        self.data_rank, self.data = rank, world


def portions(world: int, rows: int) -> Portions:
    """Of an update of 12 rows of 32 tokens, at most `rows` of them in a pass."""
    sizes = settings.Sizes(step=384, rows=rows, sequence=32)
    shape = settings.Shape(kind="encoder-decoder", layers=1, width=32)
    return pretraining.portions(sizes, model_config(shape, 300, 32, 0), world)


@pytest.mark.parametrize("rows", [1, 2, 4, 5, 12])
@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 12])
def test_passes_of_all_ranks_are_parts_of_those_of_one(world: int, rows: int) -> None:
    made, alone = portions(world, rows), portions(1, rows)
    assert made.rows * made.accumulate * world == 12
    assert made.rows <= rows
    assert made.accumulate * world % made.alone == 0
    assert (made.alone, made.tokens) == (alone.accumulate, alone.tokens)


def batches(given: Material, world: int, **shares: float) -> list[Mixture]:
    """Those of each rank, at most four rows in a pass."""
    made = portions(world, 4)
    ranks = [Rank(rank, world) for rank in range(world)]
    return [pretraining.batches(given, task(**shares), made, 32, 0, rank, "cpu") for rank in ranks]


def update(ranks: list[Mixture]) -> list[Any]:
    """The pairs of an update, over all ranks."""
    passes = portions(len(ranks), 4).accumulate
    return sorted(one for _ in range(passes) for rank in ranks for one in seen(next(rank)))


@pytest.mark.parametrize("world", [2, 3, 4, 6])
def test_translation_goes_on_with_another_number_of_ranks(world: int) -> None:
    """Three passes of one process: more ranks make as many, or one."""
    given = material([pair(n) for n in range(150)], [])
    one, several = batches(given, 1, translate=1.0), batches(given, world, translate=1.0)
    for _ in range(4):
        assert update(several) == update(one)
    fewer, more = batches(given, 1, translate=1.0), batches(given, world, translate=1.0)
    fewer[0].restore(json.loads(json.dumps(several[0].state())))
    for rank in more:
        rank.restore(json.loads(json.dumps(one[0].state())))
    for _ in range(4):
        assert update(fewer) == update(more) == update(one)


@pytest.mark.parametrize("world", [2, 3, 4, 6])
def test_a_mixture_goes_on_with_another_number_of_ranks(world: int, tmp_path: Path) -> None:
    tokens = write(tmp_path, [[("a", list(range(100)) * 5)]], vocabulary=300)
    given = Material(tokens, with_roles(), tuple(pair(n) for n in range(150)))
    shares = {"denoise": 0.7, "translate": 0.3}
    (one,) = batches(given, 1, **shares)
    for _ in range(portions(1, 4).accumulate * 5):
        next(one)
    for rank in batches(given, world, **shares):
        rank.restore(json.loads(json.dumps(one.state())))
        next(rank)
