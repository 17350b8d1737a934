"""The objectives beyond packed examples: against plain references in float64, and learnt beside controls."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from matura.core.settings import OptimizerConfig
from matura.model import config as c
from matura.model.attention import Packed, attend_reference
from matura.model.transformer import Transformer
from matura.train.batches import Example, pack
from matura.train.blocks import TokenBatch
from matura.train.corrupt import MaskedBatch, Masking, PairBatch
from matura.train.loop import train
from matura.train.objectives import every_token, loss, masked_tokens, next_token, sequence_to_sequence
from matura.train.optim import build_optimizer, build_schedule
from matura.train.pairs import Pair, PairBatches, pad
from tests.model.tiny import build, gpt_stack, llama_config, some_ids

VOCABULARY = 97


def encoder_config(vocabulary: int = VOCABULARY) -> c.ModelConfig:
    head = c.LanguageHead(bias=True, transform=c.LayerNorm())
    return c.ModelConfig(vocabulary=vocabulary, context=128, encoder=gpt_stack(causal=False), head=head)


def pair_config(vocabulary: int = VOCABULARY) -> c.ModelConfig:
    stacks = {"encoder": gpt_stack(causal=False), "decoder": gpt_stack(cross=True)}
    return c.ModelConfig(vocabulary=vocabulary, context=128, **stacks, start_id=0)


def nll(model: Transformer, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
    return F.cross_entropy(model.logits(hidden_ND), targets_N, reduction="none")


def plain(*args: object, **kwargs: object) -> Tensor:
    return attend_reference(*args, **kwargs)[0]  # type: ignore[arg-type]


def assert_same(model: Transformer, ours: Tensor, theirs: Tensor) -> None:
    """Equal losses and gradients."""
    found = []
    for value in (ours, theirs):
        model.zero_grad()
        value.backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=0, atol=1e-9, msg=name)


def test_every_token_is_the_plain_loss_at_all_positions() -> None:
    model = build(llama_config())
    ids = some_ids(3, 13)
    batch = TokenBatch(ids[:, :-1], ids[:, 1:])
    logits = model.logits(model.decode(batch.ids_BT, attend=plain))
    expected = F.cross_entropy(logits.flatten(0, 1), batch.targets_BT.flatten(), reduction="sum")
    assert_same(model, every_token(model, batch), expected)
    assert batch.weight == 36


def test_every_token_of_packed_documents_with_weights_is_theirs_alone() -> None:
    model = build(llama_config())
    ids, targets, weights = some_ids(1, 20), some_ids(1, 20, seed=2), torch.rand(1, 20, dtype=torch.float64)
    batch = TokenBatch(ids, targets, weights, Packed((12, 8)))
    expected = sum(
        (nll(model, model.decode(ids[:, part])[0], targets[0, part]) * weights[0, part]).sum()
        for part in (slice(12), slice(12, 20))
    )
    assert_same(model, every_token(model, batch), expected)


def test_masked_tokens_is_the_plain_loss_where_tokens_were_taken() -> None:
    model = build(encoder_config())
    ids, where = some_ids(4, 10), torch.tensor([0, 9, 17, 39])
    weights = torch.tensor([1.0, 0.5, 2.0, 1.0], dtype=torch.float64)
    batch = MaskedBatch(ids, where, some_ids(4, seed=3), weights)
    hidden = model.encode(ids, attend=plain)
    at = [(0, 0), (0, 9), (1, 7), (3, 9)]
    expected = (nll(model, torch.stack([hidden[place] for place in at]), batch.targets_N) * weights).sum()
    assert_same(model, masked_tokens(model, batch), expected)
    nothing = MaskedBatch(ids, where[:0], where[:0], weights[:0])
    assert masked_tokens(model, nothing).item() == 0
    masked_tokens(model, nothing).backward()


def test_sequence_to_sequence_is_the_sum_of_its_pairs_alone() -> None:
    model = build(pair_config())
    pairs = [Pair((5, 6, 7, 8), (9, 10)), Pair((11,), (12, 13, 14)), Pair((15, 16), (17,))]
    expected = torch.zeros((), dtype=torch.float64)
    for pair in pairs:
        memory = model.encode(torch.tensor([pair.source]), attend=plain)
        ids = torch.tensor([(0, *pair.target[:-1])])
        hidden = model.decode(ids, memory_BSD=memory, attend=plain)
        expected = expected + nll(model, hidden[0], torch.tensor(pair.target)).sum()
    batch = pad(pairs, start=0, padding=96)
    assert_same(model, sequence_to_sequence(model, batch), expected)
    other = sequence_to_sequence(model, pad(pairs, start=0, padding=1))  # whatever the padding is
    torch.testing.assert_close(other, expected, rtol=0, atol=1e-9)
    idle = sequence_to_sequence(model, pad(pairs[:1], start=0, padding=96, real=0))
    assert idle.item() == 0
    idle.backward()


def test_the_kind_of_batch_decides_the_objective() -> None:
    decoder, encoder, both = build(llama_config()), build(encoder_config()), build(pair_config())
    ids = some_ids(2, 6)
    packed = pack([Example(tuple(ids[0].tolist()), (True,) * 6)])
    assert loss(decoder, packed) == next_token(decoder, packed)
    rows = TokenBatch(ids[:, :-1], ids[:, 1:])
    assert loss(decoder, rows) == every_token(decoder, rows)
    masked = MaskedBatch(ids, torch.tensor([3]), torch.tensor([4]), torch.ones(1))
    assert loss(encoder, masked) == masked_tokens(encoder, masked)
    pairs = pad([Pair((5, 6), (7, 8))], start=0, padding=0)
    assert loss(both, pairs) == sequence_to_sequence(both, pairs)
    with pytest.raises(TypeError, match="no objective is for int"):
        loss(decoder, 3)  # type: ignore[arg-type]


def small(config: c.ModelConfig) -> c.ModelConfig:
    """One block in each stack, with rotary positions: what a task of a few tokens needs."""
    change = {"layers": 1, "position": c.Rope()}
    stacks = {
        name: stack.model_copy(update=change)
        for name, stack in (("encoder", config.encoder), ("decoder", config.decoder))
        if stack is not None
    }
    return config.model_copy(update=stacks)


def fit(config: c.ModelConfig, batches: Iterator[Any], steps: int) -> Transformer:
    """A small model after so many steps."""
    model = Transformer(small(config)).initialize(0)
    settings = OptimizerConfig(lr=1e-2, kind="muon", warmup=0.1)
    optimizer = build_optimizer(model, settings)
    for _ in train(model, batches, loss, optimizer, build_schedule(settings, steps), steps=steps):
        pass
    return model.eval()


SPECIALS, PERIOD = 3, 10


def cyclic(rows: int, length: int, seed: int) -> TokenBatch:
    """Rows that count around in 10 tokens: a neighbour on either side says what is missing."""
    start = torch.randint(0, PERIOD, (rows, 1), generator=torch.Generator().manual_seed(seed))
    ids = SPECIALS + (start + torch.arange(length + 1)) % PERIOD
    return TokenBatch(ids[:, :-1], ids[:, 1:])


@pytest.mark.parametrize("shuffled", [False, True])
def test_an_encoder_learns_to_fill_masks_but_not_shuffled_ones(shuffled: bool) -> None:
    special = np.arange(SPECIALS + PERIOD) < SPECIALS
    masking = Masking(2, special, np.arange(SPECIALS, SPECIALS + PERIOD), seed=0)

    def batches() -> Iterator[MaskedBatch]:
        for step in count():
            batch = masking(cyclic(32, 12, seed=step))
            if shuffled:
                order = torch.randperm(len(batch.where_N), generator=torch.Generator().manual_seed(step))
                batch = replace(batch, targets_N=batch.targets_N[order])
            yield batch

    model = fit(encoder_config(SPECIALS + PERIOD), batches(), 120)
    test = masking(cyclic(64, 12, seed=99_999))
    with torch.no_grad():
        hidden = model.encode(test.ids_BT).flatten(0, 1)[test.where_N]
        right = (model.logits(hidden).argmax(-1) == test.targets_N).float().mean().item()
    assert right < 0.3 if shuffled else right > 0.9


@pytest.mark.parametrize("shuffled", [False, True])
def test_an_encoder_decoder_learns_to_reverse_but_not_from_shuffled_sources(shuffled: bool) -> None:
    rows = list(itertools.product(range(3, 11), repeat=3))
    random.Random(0).shuffle(rows)
    pairs = [Pair((*row, 1), (*reversed(row), 1)) for row in rows]
    heldout, given = pairs[:64], pairs[64:]
    if shuffled:
        given = [Pair(given[i - 1].source, pair.target) for i, pair in enumerate(given)]
    model = fit(pair_config(11), PairBatches(given, tokens=256, start=0, seed=0), 150)
    right = exact(model, pad(heldout, start=0, padding=0))
    assert right < 0.1 if shuffled else right > 0.9


@torch.no_grad()
def exact(model: Transformer, batch: PairBatch) -> float:
    """Share of rows written as they should be, greedily, token by token."""
    memory_BSD = model.encode(batch.source_BS)
    ids_BT = batch.ids_BT[:, :1]
    for _ in range(batch.targets_BT.shape[1]):
        hidden_BTD = model.decode(ids_BT, memory_BSD=memory_BSD)
        ids_BT = torch.cat([ids_BT, model.logits(hidden_BTD[:, -1:]).argmax(-1)], 1)
    return (ids_BT[:, 1:] == batch.targets_BT).all(1).float().mean().item()
