"""Losses and scores against the plain formula."""

import pytest
import torch

from matura.model import logprobs
from matura.model.heads import Unembedding
from matura.model.logprobs import (
    Shaping,
    continuation_kl,
    continuation_logprobs,
    cross_entropy,
    cross_entropy_reference,
)
from tests.model.tiny import build, llama_config, some_ids


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("chunk", [2, 7, 512])
def test_chunked_cross_entropy_equals_the_formula(
    chunk: int, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logprobs, "CHUNK", chunk)
    make = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 6, generator=make, dtype=torch.float64, requires_grad=True)
    head = torch.randn(11, 6, generator=make, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(11, generator=make, dtype=torch.float64, requires_grad=True)
    targets, weights = some_ids(7, vocabulary=11), torch.tensor([1, 0, 2, 1, 1, 0.5, 1], dtype=torch.float64)
    reads = Unembedding(head, bias, softcap)
    loss = cross_entropy(hidden, reads, targets, weights)
    expected = cross_entropy_reference(hidden, reads, targets, weights)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    found = torch.autograd.grad(loss * 3, (hidden, head, bias))
    for a, b in zip(found, torch.autograd.grad(expected * 3, (hidden, head, bias)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


SHAPES = [(0.1, 0.0), (0.0, 1e-2), (0.1, 1e-2)]


@pytest.mark.parametrize(("smoothing", "z_loss"), SHAPES)
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_label_smoothing_and_z_loss_equal_the_formula(
    smoothing: float, z_loss: float, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logprobs, "CHUNK", 3)
    make = torch.Generator().manual_seed(0)
    hidden, head, bias = (
        torch.randn(shape, generator=make, dtype=torch.float64, requires_grad=True)
        for shape in [(7, 6), (11, 6), (11,)]
    )
    targets, weights = some_ids(7, vocabulary=11), torch.tensor([1, 0, 2, 1, 1, 0.5, 1], dtype=torch.float64)
    reads = Unembedding(head, bias, softcap)
    loss = cross_entropy(hidden, reads, targets, weights, label_smoothing=smoothing, z_loss=z_loss)
    expected = cross_entropy_reference(hidden, reads, targets, weights, Shaping(smoothing, z_loss))
    logits = reads.logits(hidden)
    theirs = torch.nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    theirs = ((theirs + z_loss * logits.logsumexp(-1) ** 2) * weights).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(loss, theirs, rtol=1e-12, atol=0)
    assert loss.item() != pytest.approx(cross_entropy(hidden, reads, targets, weights).item(), rel=1e-3)
    found = torch.autograd.grad(loss * 3, (hidden, head, bias))
    for a, b in zip(found, torch.autograd.grad(theirs * 3, (hidden, head, bias)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_loss_and_the_sums_are_float32(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logprobs, "CHUNK", 100)
    make = torch.Generator().manual_seed(0)
    hidden, head = (torch.randn(n, 32, generator=make, requires_grad=True) for n in (700, 90))
    targets, weights = some_ids(700, vocabulary=90), torch.ones(700)
    with torch.autocast("cpu", dtype):
        loss = cross_entropy(hidden, Unembedding(head), targets, weights)
    # The same products from rounded inputs, everything else exactly.
    rounded = [x.detach().to(dtype).double().requires_grad_() for x in (hidden, head)]
    logits = (rounded[0] @ rounded[1].T).to(dtype).double()
    exact = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)  # bfloat16 sums would be off by percents
    loss.backward()
    exact.backward()
    for mine, other in zip((hidden, head), rounded, strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        assert mine.grad.dtype == torch.float32
        assert (mine.grad - other.grad).norm() / other.grad.norm() < 0.01


def test_no_positions_give_a_connected_zero() -> None:
    hidden = torch.zeros(0, 6, requires_grad=True)
    loss = cross_entropy(
        hidden, Unembedding(torch.ones(11, 6)), torch.zeros(0, dtype=torch.long), torch.zeros(0)
    )
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None


def test_a_huge_logit_stays_finite() -> None:
    hidden, head = torch.full((1, 1), 1e4), Unembedding(torch.tensor([[1.0], [-1.0]]))
    loss = cross_entropy(hidden, head, torch.tensor([1]), torch.ones(1))
    assert loss.item() == pytest.approx(2e4)


def test_continuations_equal_the_plain_forward_pass_in_any_batch() -> None:
    model = build(llama_config())
    rows = [
        (some_ids(n, seed=n).tolist(), some_ids(m, seed=50 + n).tolist())
        for n, m in [(3, 2), (1, 5), (9, 1), (4, 4)]
    ]
    rows.append(([5], []))
    question = some_ids(6, seed=7).tolist()
    rows += [(question, some_ids(n, seed=90 + n).tolist()) for n in (1, 4, 2)]  # choices of one question
    together = continuation_logprobs(model, rows, tokens_per_batch=100)
    split = continuation_logprobs(model, rows, tokens_per_batch=1)
    for (context, continuation), found, alone in zip(rows, together, split, strict=True):
        ids = torch.tensor([[*context, *continuation]])
        logprobs_TV = torch.log_softmax(model.logits(model.decode(ids))[0].float(), -1)
        expected = [logprobs_TV[len(context) - 1 + i, id].item() for i, id in enumerate(continuation)]
        assert found == pytest.approx(expected, abs=1e-5)
        assert alone == pytest.approx(expected, abs=1e-5)


def test_kl_is_zero_for_itself_and_equals_the_formula() -> None:
    parent, child = build(llama_config()), build(llama_config(), seed=9)
    rows = [(some_ids(4).tolist(), some_ids(3, seed=5).tolist())]
    assert continuation_kl(parent, parent, rows)[0] == pytest.approx([0, 0, 0], abs=1e-6)
    ids = torch.tensor([[*rows[0][0], *rows[0][1]]])
    p, q = (torch.log_softmax(m.logits(m.decode(ids))[0, 3:6].float(), -1) for m in (parent, child))
    expected = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
    assert continuation_kl(parent, child, rows)[0] == pytest.approx(expected.tolist(), abs=1e-5)


def test_an_empty_context_is_refused() -> None:
    with pytest.raises(ValueError, match="context is empty"):
        continuation_logprobs(build(llama_config()), [([], [1])])
