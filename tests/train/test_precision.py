"""Low precision: near the exact gradients, float32 where it matters, and float16 overflows that cost one step."""

import copy
import math

import pytest
import torch
from torch import Tensor

from matura.core.errors import ConfigError
from matura.model.transformer import Transformer
from matura.train import precision as precisions
from matura.train.batches import PackedBatch, pack
from matura.train.loop import Diverged, Step, train
from matura.train.objectives import next_token
from matura.train.optim import build_optimizer
from matura.train.precision import FP32, Precision, Scaler, choose_precision
from tests.model.tiny import build, llama_config
from tests.train.test_batches import examples
from tests.train.test_loop import ADAMW


def model() -> Transformer:
    return build(llama_config(), dtype=torch.float32, scale=1.0)


@pytest.mark.parametrize(("name", "limit"), [("bf16", 0.05), ("fp16", 0.005)])
def test_gradients_are_near_those_of_full_precision(name: str, limit: float) -> None:
    batch = pack(examples(5))
    grads = []
    for precision in (FP32, choose_precision(name)):  # type: ignore[arg-type]
        one = model()
        with precision.autocast():
            loss = next_token(one, batch)
        assert loss.dtype == torch.float32
        loss.backward()
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in one.parameters() if p.grad is not None)
        grads.append(torch.cat([p.grad.flatten() for p in one.parameters() if p.grad is not None]))
    exact, low = grads
    assert 1e-6 < (exact - low).norm() / exact.norm() < limit


@pytest.mark.parametrize("length", [30, 200])  # below and above a block of the CPU's own attention
def test_bf16_takes_long_rows(length: int) -> None:
    made = examples(1, seed=3)[0]
    ids = (made.ids * 200)[:length]
    batch = pack([type(made)(ids, (True,) * length)])
    with choose_precision("bf16").autocast():
        loss = next_token(model(), batch)
    assert loss.item() == pytest.approx(next_token(model(), batch).item(), rel=1e-2)


def run(
    one: Transformer, precision: Precision, *, steps: int = 3, spoiled: tuple[int, ...] = ()
) -> list[Step]:
    """Steps on the same batch; the gradients of the spoiled ones (from 1) overflow."""
    seen = iter(range(1, steps + 1))

    def objective(one: Transformer, batch: PackedBatch) -> Tensor:
        loss = next_token(one, batch)
        if next(seen) in spoiled:
            one.embed.weight.register_hook(lambda grad: grad * math.inf)  # for the rest of this model's life
        return loss

    optimizer = build_optimizer(one, ADAMW)
    batches = iter([pack(examples(3))] * steps)
    return list(train(one, batches, objective, optimizer, lambda _: 1e-2, steps=steps, precision=precision))


def test_an_overflow_is_left_out_and_halves_the_scale() -> None:
    one, precision = model(), choose_precision("fp16")
    before = copy.deepcopy(one.state_dict())
    steps = run(one, precision, steps=2, spoiled=(1,))
    assert [step.skipped for step in steps] == [1, 2]
    assert not math.isfinite(steps[0].grad_norm)
    assert math.isfinite(steps[0].loss)
    assert precision.scale == 65536 / 4
    assert all(torch.equal(before[name], tensor) for name, tensor in one.state_dict().items())


def test_without_an_overflow_nothing_is_left_out() -> None:
    one, precision = model(), choose_precision("fp16")
    steps = run(one, precision)
    assert [step.skipped for step in steps] == [0, 0, 0]
    exact = run(model(), FP32)
    for a, b in zip(steps, exact, strict=True):
        assert a.grad_norm == pytest.approx(b.grad_norm, rel=0.01)  # the scale is out again
        assert a.loss == pytest.approx(b.loss, rel=0.01)


def test_an_overflow_that_no_scale_cures_ends_training() -> None:
    precision = Precision(torch.float16, "cpu", Scaler(scale=2.0))
    with pytest.raises(Diverged, match=r"step 2: .* not finite"):
        run(model(), precision, steps=3, spoiled=(1,))
    with pytest.raises(Diverged, match="step 1"):
        run(model(), choose_precision("bf16"), spoiled=(1,))


def test_the_scale_grows_after_good_steps_and_its_state_goes_on() -> None:
    scaler = Scaler(scale=8.0, growth_every=3)
    assert [scaler.judge(ok) for ok in (True, True, False, True, True, True)] == [
        True,
        True,
        False,
        True,
        True,
        True,
    ]
    assert (scaler.scale, scaler.skipped, scaler.good) == (8.0, 1, 0)
    other = Scaler()
    other.restore(scaler.state())
    assert other.state() == scaler.state()


def test_small_gradients_would_vanish_without_the_scale() -> None:
    tiny = torch.tensor(1e-9)
    assert tiny.half() == 0
    assert (tiny * Scaler().scale).half() / Scaler().scale == pytest.approx(1e-9, rel=1e-2)


def test_auto_is_what_the_device_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision("auto") == FP32
    assert choose_precision("fp32").scale == 1.0
    monkeypatch.setattr(precisions, "_has_bf16", lambda kind: True)
    assert choose_precision("auto", "cuda:1") == Precision(torch.bfloat16, "cuda")
    monkeypatch.setattr(precisions, "_has_bf16", lambda kind: False)
    old = choose_precision("auto", "cuda")
    assert (old.dtype, old.scale) == (torch.float16, 65536.0)
    with pytest.raises(ConfigError, match="has no bfloat16; use precision=fp16 or fp32"):
        choose_precision("bf16", "cuda")
