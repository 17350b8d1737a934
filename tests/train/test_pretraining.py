"""What a run is made of: the portions of an update, batches that any number of ranks share, looks."""

from typing import Any, cast

import torch

from matura.core import pretrain_settings as settings
from matura.core.records import Conversation
from matura.data.shards import TokenShards
from matura.train import pretraining
from matura.train.pretraining import Material, Task
from matura.train.ranks import ALONE
from tests.stages.test_pretrain import pair, with_roles


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
