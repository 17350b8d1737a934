"""Log-probabilities and entropies of tokens against the plain formula, in value and gradient."""

import gc
import weakref

import pytest
import torch
from torch import Tensor

from matura.core.peft_settings import LoraConfig
from matura.model import logprobs
from matura.model.heads import Unembedding
from matura.model.likelihoods import Likelihoods, likelihoods, likelihoods_reference
from matura.model.peft.lora import apply_lora
from tests.model.tiny import some_ids
from tests.tiny_models import network

N, D, V = 7, 6, 11


def leaves() -> tuple[Tensor, Tensor, Tensor]:
    make = torch.Generator().manual_seed(0)
    x, head, bias = (
        torch.randn(shape, generator=make, dtype=torch.float64, requires_grad=True)
        for shape in [(N, D), (V, D), (V,)]
    )
    return x, head, bias


def weighted(found: Likelihoods) -> Tensor:
    """A loss in which every token counts differently, as ratios and margins make them."""
    total = (found.logprobs_N.exp() * torch.linspace(-1, 2, N, dtype=torch.float64)).sum()
    return total if found.entropy_N is None else total + (found.entropy_N**2).sum()


@pytest.mark.parametrize("trained", ["features", "head", "all"])
@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("chunk", [2, 512])
def test_chunks_equal_the_formula(
    chunk: int,
    softcap: float | None,
    temperature: float,
    entropy: bool,
    trained: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logprobs, "CHUNK", chunk)
    x, head, bias = leaves()
    head.requires_grad_(trained != "features"), bias.requires_grad_(trained != "features")
    x.requires_grad_(trained != "head")
    wanted = [one for one in (x, head, bias) if one.requires_grad]
    targets, reads = some_ids(N, vocabulary=V), Unembedding(head, bias, softcap)
    found = likelihoods(x, reads, targets, temperature=temperature, entropy=entropy)
    expected = likelihoods_reference(x, reads, targets, temperature=temperature, entropy=entropy)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad(weighted(found), wanted),
        torch.autograd.grad(weighted(expected), wanted),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_a_head_without_bias_and_an_entropy_that_nobody_differentiates() -> None:
    x, head, _ = leaves()
    targets = some_ids(N, vocabulary=V)
    found = likelihoods(x, Unembedding(head.detach()), targets, entropy=True)
    (grad,) = torch.autograd.grad(found.logprobs_N.sum(), x)
    (expected,) = torch.autograd.grad(
        likelihoods_reference(x, Unembedding(head.detach()), targets).logprobs_N.sum(), x
    )
    torch.testing.assert_close(grad, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("targets", [("head",), ("embed",), ("all-linear", "head")])
def test_updates_of_the_output_matrix_are_part_of_it(targets: tuple[str, ...]) -> None:
    model = apply_lora(network(tied=targets == ("embed",)), LoraConfig(rank=2, targets=targets)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(3))
    ids = some_ids(1, 9, vocabulary=200)

    def grads(read: object) -> tuple[Tensor, list[Tensor]]:
        features = model.features(model.decode(ids))[0, :-1]
        value = read(features, model.unembedding, ids[0, 1:]).logprobs_N  # type: ignore[operator]
        trained = [p for p in model.parameters() if p.requires_grad]
        return value, list(torch.autograd.grad((value * torch.arange(8)).sum(), trained))

    value, found = grads(likelihoods)
    expected_value, expected = grads(likelihoods_reference)
    torch.testing.assert_close(value, expected_value, rtol=0, atol=1e-10)
    assert all(one.abs().sum() > 0 for one in expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_no_positions_are_a_connected_nothing() -> None:
    x, head, bias = leaves()
    found = likelihoods(x[:0], Unembedding(head, bias), torch.zeros(0, dtype=torch.long), entropy=True)
    assert found.logprobs_N.shape == (0,)
    assert found.entropy_N is not None
    for grad in torch.autograd.grad(found.logprobs_N.sum() + found.entropy_N.sum(), (x, head, bias)):
        assert grad.abs().sum() == 0


@pytest.mark.parametrize("trained", [False, True])
def test_logits_are_not_kept_for_the_way_back(trained: bool) -> None:
    """What the graph holds grows with N x D, never with N x V."""
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    x = torch.randn(300, 8, requires_grad=True)
    head = torch.randn(1000, 8, requires_grad=trained)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
        found = likelihoods(x, Unembedding(head), torch.zeros(300, dtype=torch.long))
    assert sum(sizes) <= 300 * 9 + trained * (1000 * 8 + 300 * 8)
    kept = weakref.ref(found.logprobs_N)
    found.logprobs_N.sum().backward()
    del found
    gc.collect()
    assert kept() is None


def test_nothing_is_recorded_where_no_gradient_is_wanted() -> None:
    x, head, _ = leaves()
    with torch.no_grad():
        found = likelihoods(x, Unembedding(head), some_ids(N, vocabulary=V))
    assert not found.logprobs_N.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_all_but_the_products_is_float32(dtype: torch.dtype) -> None:
    x, head, _ = (one.detach().float().requires_grad_() for one in leaves())
    targets = some_ids(N, vocabulary=V)
    with torch.autocast("cpu", dtype):
        found = likelihoods(x, Unembedding(head), targets).logprobs_N
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found, likelihoods_reference(x, Unembedding(head), targets).logprobs_N, rtol=0, atol=0.05
    )
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_none(temperature: float) -> None:
    x, head, _ = leaves()
    with pytest.raises(ValueError, match="above zero"):
        likelihoods(x, Unembedding(head), some_ids(N, vocabulary=V), temperature=temperature)
