"""What is looked at: bits per byte against counting by hand, sizes of activations, and no trace left behind."""

import math
from typing import Any

import pytest
import torch

from matura.train import watch
from matura.train.blocks import HeldoutBatch, TokenBatch
from matura.train.objectives import loss
from matura.train.ranks import Alone
from tests.model.tiny import build, llama_config, some_ids


def test_bits_per_byte_are_summed_losses_by_bytes() -> None:
    model = build(llama_config())
    ids = some_ids(3, 9)
    sizes = (5, 0, 7)
    rows = [TokenBatch(row[None, :-1], row[None, 1:]) for row in ids]
    batches = [HeldoutBatch(row, size) for row, size in zip(rows, sizes, strict=True)]
    with torch.no_grad():
        logprobs_BTV = torch.log_softmax(model.logits(model.decode(ids[:, :-1])), -1)
        nats = -float(logprobs_BTV.gather(2, ids[:, 1:, None]).sum())
        found = watch.bits_per_byte(lambda function, batch: function(model, batch), batches)
    assert found == pytest.approx(nats / math.log(2) / 12, rel=1e-9)
    assert math.isnan(watch.bits_per_byte(lambda function, batch: function(model, batch), []))


def test_the_mean_loss_is_that_of_the_weights() -> None:
    model = build(llama_config())
    ids_BT = some_ids(2, 9)
    weights_BT = torch.tensor([[1.0] * 8, [0.0] * 8], dtype=torch.float64)
    batch = TokenBatch(ids_BT[:, :-1], ids_BT[:, 1:], weights_BT)
    with torch.no_grad():
        expected = float(loss(model, TokenBatch(ids_BT[:1, :-1], ids_BT[:1, 1:]))) / 8
        found = watch.mean_loss(lambda function, one: function(model, one), [batch])
    assert found == pytest.approx(expected, rel=1e-9)


def test_ranks_share_the_batches_and_make_as_many_passes() -> None:
    model = build(llama_config())
    batches = [TokenBatch(row[None, :-1], row[None, 1:]) for row in some_ids(3, 9)]
    parts: list[tuple[float, ...]] = []
    passes: list[int] = []

    class Rank(Alone):
        data = 2

        def sum(self, *values: float) -> tuple[float, ...]:
            parts.append(values)
            return values

    with torch.no_grad():
        expected = watch.mean_loss(lambda function, batch: function(model, batch), batches)
        for number in range(2):
            rank, seen = Rank(), [0]
            rank.data_rank = number

            def compute(function: Any, batch: Any, seen: list[int] = seen) -> torch.Tensor:
                seen[0] += 1
                return function(model, batch)

            watch.mean_loss(compute, batches, rank)
            passes += seen
    nats, weight = map(sum, zip(*parts, strict=True))
    assert nats / weight == pytest.approx(expected, rel=1e-12)
    assert passes == [2, 2]
    assert parts[1][1] == 8  # the second rank read a batch twice that counts once, elsewhere


def test_activations_are_those_of_the_blocks_and_hooks_are_gone() -> None:
    model = build(llama_config(layers=3))
    ids_BT = some_ids(1, 8)
    seen: list[torch.Tensor] = []
    hook = model.decoder.blocks[1].register_forward_hook(lambda module, given, out: seen.append(out.detach()))
    with torch.no_grad():
        found = watch.activation_sizes(model, lambda: watch.hidden(model, ids_BT))
    hook.remove()
    assert list(found) == ["decoder.0", "decoder.1", "decoder.2"]
    assert found["decoder.1"] == pytest.approx(float(seen[0].square().mean().sqrt()), rel=1e-6)
    assert not any(module._forward_hooks for module in model.modules())


def test_looking_leaves_the_mode_as_it_was() -> None:
    model = build(llama_config()).train()

    def fails() -> None:
        with watch.looking(model):
            assert not model.training
            assert not torch.is_grad_enabled()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert model.training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("first", "last", "alarmed"),
    [
        (6.0, 5.9, False),
        (6.0, 6.0, True),
        (6.0, 9.0, True),
        (6.0, math.nan, True),
        (math.nan, math.nan, False),
    ],
)
def test_what_is_no_better_than_the_first_weights_is_an_alarm(
    first: float, last: float, alarmed: bool
) -> None:
    rows: list[dict[str, float]] = [
        {"step": 0, "heldout_bpb": first},
        {"step": 1},
        {"step": 2, "heldout_bpb": last},
    ]
    assert len(watch.alarms(rows)) == alarmed
    assert watch.alarms(rows[:1]) == []  # the first weights alone
    assert watch.alarms([{"step": 0}, {"step": 1}]) == []  # no held-out text


def test_the_matrix_speed_is_a_speed() -> None:
    assert 1e7 < watch.matrix_speed(size=128) < 1e14
