"""The loop: one update means the same however its rows are dealt, and a bad one never reaches the weights."""

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from matura.core.peft_settings import LoraConfig
from matura.core.settings import OptimizerConfig
from matura.model.peft.lora import apply_lora
from matura.model.transformer import Transformer
from matura.train.batches import Example, PackedBatch, pack
from matura.train.loop import Diverged, Step, train
from matura.train.objectives import next_token
from matura.train.optim import build_optimizer, build_schedule
from matura.train.spikes import Unstable
from tests.model.tiny import build, llama_config
from tests.train.test_batches import examples

ADAMW = OptimizerConfig(lr=1e-2, schedule="constant", warmup=0.0)


def run(
    model: nn.Module,
    batches: list[PackedBatch],
    *,
    steps: int,
    accumulate: int = 1,
    config: OptimizerConfig = ADAMW,
) -> list[Step]:
    optimizer = build_optimizer(model, config)
    schedule = build_schedule(config, steps)
    updates = train(model, iter(batches), next_token, optimizer, schedule, steps=steps, accumulate=accumulate)
    return list(updates)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_one_step_of_eight_examples_is_the_same_however_they_are_dealt(lora: bool, size: int) -> None:
    """T1: accumulation does not weigh ragged rows anew: 1 x 8 equals 8 x 1, updates included."""
    made = examples(16, seed=2)
    assert len({e.trained for e in made}) > 5  # ragged: a mean of means would differ
    results = []
    for rows in (8, size):
        model = build(llama_config())
        if lora:
            apply_lora(model, LoraConfig(rank=2), seed=1)
        batches = [pack(made[i : i + rows]) for i in range(0, 16, rows)]
        steps = run(model, batches, steps=2, accumulate=8 // rows)
        results.append((steps, [p for p in model.parameters() if p.requires_grad]))
    (one, weights), (other, others) = results
    for a, b in zip(one, other, strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-6)  # logged in float32
        assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-10)
        assert (a.weight, a.tokens) == (b.weight, b.tokens)
    for mine, theirs in zip(weights, others, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


def test_the_loss_is_the_mean_over_trained_tokens_of_the_step() -> None:
    """T38: the logged loss is weighted by tokens, no mean of the batches' means."""
    made = examples(6)
    model = build(llama_config())
    with torch.no_grad():
        total = sum(next_token(model, pack([example])).item() for example in made)
    expected = total / sum(sum(example.weights[1:]) for example in made)
    (step,) = run(model, [pack(made[:1]), pack(made[1:])], steps=1, accumulate=2)
    assert step.loss == pytest.approx(expected, rel=1e-6)
    assert step.step == 1


def test_a_bad_step_never_touches_the_weights() -> None:
    model = build(llama_config())
    before = copy.deepcopy(model.state_dict())
    good, bad = pack(examples(2)), pack([Example((1, 2), (0, float("inf")))])
    with pytest.raises(
        Diverged, match=r"step 1: loss .* not finite.*lower learning rate \(it was 0.01 here\)"
    ):
        run(model, [good, bad], steps=1, accumulate=2)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    def bad_gradient(model: Transformer, batch: PackedBatch) -> Tensor:
        return next_token(model, batch) + (model.decoder.norm.weight * 0).abs().sqrt().sum()  # type: ignore

    optimizer = build_optimizer(model, ADAMW)
    with pytest.raises(Diverged, match="gradient norm nan"):
        list(train(model, iter([good]), bad_gradient, optimizer, lambda step: 1e-2, steps=1))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_gradient_of_an_update_that_was_given_up_is_in_no_later_one() -> None:
    """Where training goes back to a checkpoint, the update that it gave up had made a gradient already."""

    def given_up(loss: float, norm: float) -> bool:
        raise Unstable

    (good, bad), made = (pack(examples(2, seed=seed)) for seed in (1, 2)), []
    for bad_first in (True, False):
        model = build(llama_config())
        optimizer = build_optimizer(model, ADAMW)
        if bad_first:
            steps = train(
                model, iter([bad]), next_token, optimizer, lambda step: 1e-2, steps=1, allows=given_up
            )
            with pytest.raises(Unstable):
                next(steps)
        (step,) = train(model, iter([good]), next_token, optimizer, lambda step: 1e-2, steps=1)
        made.append((step, model.state_dict()))
    (one, weights), (other, others) = made
    assert one == other
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_step_with_nothing_to_train_is_passed_over() -> None:
    model = build(llama_config())
    before = copy.deepcopy(model.state_dict())
    nothing = pack([Example((1, 2, 3), (True, False, False))])
    (step,) = run(model, [nothing], steps=1)
    assert (step.loss, step.grad_norm, step.weight, step.tokens) == (0.0, 0.0, 0.0, 2)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    one = run(build(llama_config()), [nothing, pack(examples(3))], steps=1, accumulate=2)
    other = run(build(llama_config()), [pack(examples(3))], steps=1)
    assert (one[0].loss, one[0].grad_norm) == (other[0].loss, other[0].grad_norm)


def test_gradients_are_clipped_to_the_norm_after_it_is_reported() -> None:
    model = build(llama_config())
    batch = pack(examples(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = [p.detach().clone() for p in model.parameters()]
    (step,) = train(model, iter([batch]), next_token, optimizer, lambda step: 1.0, steps=1, clip=0.5)
    moved = torch.cat([(a - b).flatten() for a, b in zip(before, model.parameters(), strict=True)]).norm()
    assert step.grad_norm > 0.5
    assert moved.item() == pytest.approx(0.5, rel=1e-4)


def test_batches_are_pulled_when_their_step_begins_and_a_partial_step_is_left_out() -> None:
    pulled = []

    def batches() -> Iterator[PackedBatch]:
        for n in range(5):
            pulled.append(n)
            yield pack(examples(1, seed=7))

    model = build(llama_config())
    optimizer = build_optimizer(model, ADAMW)
    steps = train(model, batches(), next_token, optimizer, lambda step: 1e-3, steps=9, accumulate=2, start=3)
    assert next(steps).step == 4
    assert pulled == [0, 1]
    assert [step.step for step in steps] == [5]


def test_groups_scale_the_rate() -> None:
    model = build(llama_config())
    optimizer = build_optimizer(model, ADAMW)
    optimizer.param_groups[1]["lr_scale"] = 0.5
    steps = train(model, iter([pack(examples(2))]), next_token, optimizer, lambda step: 0.25, steps=1)
    assert next(steps).lr == 0.25
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.125]


def memorise(rows: list[tuple[int, ...]], lr: float) -> float:
    """The mean loss on one text after training on `rows`."""
    model = build(llama_config(), dtype=torch.float32, scale=1.0)
    batches = [pack([Example(row, (True,) * len(row))]) for row in rows]
    run(model, batches, steps=len(rows), config=OptimizerConfig(lr=lr, schedule="linear"))
    with torch.no_grad():
        batch = pack([Example(TEXT, (True,) * len(TEXT))])
        return next_token(model.eval(), batch).item() / batch.weight


TEXT = tuple((7 * i * i + 3 * i) % 97 for i in range(40))


def test_a_text_is_learned_by_heart_but_not_without_a_rate_or_from_another_text() -> None:
    draw = torch.Generator().manual_seed(0)
    noise = [tuple(torch.randint(0, 97, (40,), generator=draw).tolist()) for _ in range(60)]
    assert memorise([TEXT] * 60, lr=1e-2) < 0.1
    assert memorise([TEXT] * 60, lr=1e-12) == pytest.approx(math.log(97), abs=0.1)
    assert memorise(noise, lr=1e-2) > 3.0
