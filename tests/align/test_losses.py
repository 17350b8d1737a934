"""Losses of preferences: golden numbers, their formulas, and TRL's own code where it is installed.

The golden numbers were made by TRL 1.16.0 on these scores (float64, torch 2.13.0): DPOTrainer, KTOTrainer, ORPOTrainer
and CPOTrainer. `test_the_golden_numbers_are_trls` makes them again.
"""

import math
import types
from collections import defaultdict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from matura.align import losses
from matura.core.dpo_settings import PreferenceLoss

CHOSEN = torch.tensor([-12.5, -3.25, -40.0, -7.75], dtype=torch.float64)
REJECTED = torch.tensor([-11.0, -9.5, -38.5, -30.0], dtype=torch.float64)
REF_CHOSEN = torch.tensor([-13.0, -3.0, -35.0, -9.5], dtype=torch.float64)
REF_REJECTED = torch.tensor([-12.0, -8.0, -39.5, -21.25], dtype=torch.float64)
CHOSEN_TOKENS, REJECTED_TOKENS = torch.tensor([10, 4, 20, 6]), torch.tensor([8, 5, 25, 12])
BETA, SMOOTHING, GAMMA = 0.25, 0.1, 0.5
Z = [1.5, -0.5, 2.0, -1.0]

GOLDEN = {
    "sigmoid": [0.757599035, 0.549054862, 1.701413278, 0.0699362],
    "sigmoid token": [0.702566125, 0.66390029, 0.730054068, 0.573662427],
    "robust": [0.773224035, 0.509992362, 1.888913278, -0.2581888],
    "ipo token": [4.305625, 3.10640625, 5.2441, 0.958767361],
    "hinge": [1.125, 0.6875, 2.5, 0.0],
    "kto": [0.75, 0.820107228, 1.197280167, 0.633756952, 0.265604687, 0.188770334, 0.265604687, 0.045046497],
    "orpo": [0.152812554, 0.04980777, 0.252304714, 0.052966068],
    "simpo": [0.954740167, 0.813700751, 1.047198496, 0.796993919],
    "simpo smoothed": [0.907865167, 0.790888251, 0.985698496, 0.777202252],
}


def d(scale: str = "sequence") -> Tensor:
    chosen, rejected = CHOSEN - REF_CHOSEN, REJECTED - REF_REJECTED
    if scale == "token":
        return chosen / CHOSEN_TOKENS - rejected / REJECTED_TOKENS
    return chosen - rejected


def ours() -> dict[str, Tensor]:
    """Every loss that TRL has too, pair by pair; KTO's of all chosen answers, then of all rejected ones."""
    means = CHOSEN / CHOSEN_TOKENS, REJECTED / REJECTED_TOKENS
    scores = torch.cat([CHOSEN - REF_CHOSEN, REJECTED - REF_REJECTED])
    liked = torch.tensor([True] * 4 + [False] * 4)
    return {
        "sigmoid": losses.sigmoid(d(), BETA),
        "sigmoid token": losses.sigmoid(d("token"), BETA),
        "robust": losses.robust(d(), BETA, SMOOTHING),
        "ipo token": losses.ipo(d("token"), BETA),
        "hinge": losses.hinge(d(), BETA),
        "kto": losses.kto(scores, liked, sum(Z) / len(Z), BETA, desirable=1.5, undesirable=0.5),
        "orpo": -BETA * F.logsigmoid(losses.odds_ratio(*means)),
        "simpo": losses.simpo(*means, BETA, GAMMA),
        "simpo smoothed": losses.sigmoid(means[0] - means[1] - GAMMA / BETA, BETA, SMOOTHING),
    }


def test_every_loss_equals_the_golden_numbers() -> None:
    found = ours()
    assert found.keys() == GOLDEN.keys()
    for name, values in found.items():
        torch.testing.assert_close(
            values, torch.tensor(GOLDEN[name], dtype=torch.float64), rtol=0, atol=1e-6, msg=name
        )


def test_losses_that_trl_lacks_equal_their_formulas() -> None:
    for scale in ("sequence", "token"):
        for one, loss in zip(
            d(scale).tolist(), losses.sigmoid(d(scale), BETA, SMOOTHING).tolist(), strict=True
        ):
            right, wrong = (math.log1p(math.exp(sign * BETA * one)) for sign in (-1, 1))
            assert loss == pytest.approx((1 - SMOOTHING) * right + SMOOTHING * wrong, abs=1e-12)
    for one, loss in zip(d().tolist(), losses.ipo(d(), BETA).tolist(), strict=True):
        assert loss == pytest.approx((one - 2.0) ** 2, abs=1e-12)
    means = CHOSEN / CHOSEN_TOKENS, REJECTED / REJECTED_TOKENS
    for c, r, loss in zip(*(one.tolist() for one in means), losses.orpo(*means, BETA).tolist(), strict=True):
        odds = [math.exp(x) / (1 - math.exp(x)) for x in (c, r)]
        assert loss == pytest.approx(-c + BETA * math.log1p(odds[1] / odds[0]), abs=1e-10)


def test_the_two_scales_of_ipo_are_two_losses() -> None:
    """T18: sums and means are told apart by a setting, and the default is the paper's."""
    whole, token = (
        losses.of_pairs(PreferenceLoss(kind="ipo", beta=BETA, scale=scale), d(scale), 0 * d(), 0 * d())
        for scale in ("sequence", "token")
    )
    assert (whole - token).abs().min() > 0.1
    assert PreferenceLoss(kind="ipo").scaled == "sequence"


def test_simpo_has_no_hidden_loss_of_its_own() -> None:
    """T18: no plain loss is added unless it is asked for."""
    means = CHOSEN / CHOSEN_TOKENS, REJECTED / REJECTED_TOKENS
    plain = PreferenceLoss(kind="simpo", beta=BETA, gamma=GAMMA)
    torch.testing.assert_close(
        losses.of_pairs(plain, *means, -means[0]), losses.simpo(*means, BETA, GAMMA), rtol=0, atol=0
    )
    with_nll = plain.model_copy(update={"nll": 0.3})
    torch.testing.assert_close(
        losses.of_pairs(with_nll, *means, -means[0]), losses.simpo(*means, BETA, GAMMA) - 0.3 * means[0]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_log1mexp_is_finite_everywhere_and_so_is_its_gradient(dtype: torch.dtype) -> None:
    """T17: at 0, near it, and far away."""
    x = torch.tensor(
        [0.0, -1e-8, -1e-4, -0.5, -math.log(2), -1.0, -50.0, -1e4], dtype=dtype, requires_grad=True
    )
    y = losses.log1mexp(x)
    assert torch.isfinite(y).all()
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.isfinite(gradient).all()
    if dtype == torch.float64:
        for value, at in zip(y[1:-1].tolist(), x[1:-1].tolist(), strict=True):
            assert value == pytest.approx(math.log(-math.expm1(at)), rel=1e-12)


def test_orpo_of_answers_that_are_certain_is_finite() -> None:
    """T17: loss and gradient, though log(1 - p) is not."""
    chosen, rejected = (torch.tensor([0.0, -1e-8, -50.0, 0.0], requires_grad=True) for _ in range(2))
    loss = losses.orpo(chosen, rejected.flip(0), 0.1)
    loss.sum().backward()
    for one in (loss, chosen.grad, rejected.grad):
        assert one is not None
        assert torch.isfinite(one).all()


def test_the_divergence_of_kto_is_not_negative_and_gets_no_gradient() -> None:
    """T16: below zero it counts as zero, and it is no way round the loss."""
    scores = torch.tensor([0.3, -0.2], requires_grad=True)
    liked = torch.tensor([True, False])
    z = torch.tensor(0.7, requires_grad=True)
    losses.kto(scores, liked, z, 0.5).sum().backward()
    assert z.grad is None
    torch.testing.assert_close(losses.kto(scores, liked, -3.0, 0.5), losses.kto(scores, liked, 0.0, 0.5))
    assert not torch.allclose(losses.kto(scores, liked, 0.7, 0.5), losses.kto(scores, liked, 0.0, 0.5))


def test_equal_models_cost_log_2() -> None:
    """T13: of scores alone."""
    nothing = torch.zeros(3)
    for kind, expected in {"sigmoid": math.log(2), "hinge": 1.0, "ipo": 25.0}.items():
        found = losses.of_pairs(PreferenceLoss(kind=kind), nothing, nothing, nothing)
        torch.testing.assert_close(found, torch.full((3,), expected), rtol=1e-6, atol=1e-6)


def test_settings_that_would_do_nothing_are_refused() -> None:
    for wrong, message in [
        ({"kind": "ipo", "smoothing": 0.1}, "smoothing is for"),
        ({"kind": "robust"}, "needs smoothing"),
        ({"kind": "simpo", "scale": "sequence"}, "means over tokens"),
        ({"kind": "kto", "nll": 1.0}, "nll is for pairs"),
        ({"kind": "kto", "scale": "token"}, "compares sums with a divergence"),
        ({"kind": "sigmoid", "gamma": 2.0}, "gamma is for"),
        ({"kind": "sigmoid", "desirable": 2.0}, "desirable is for"),
    ]:
        with pytest.raises(ValueError, match=message):
            PreferenceLoss(**wrong)


# TRL's own code, called with these scores.


class _Said(dict[str, Any]):
    """What a model of TRL answers: log-probabilities of tokens as they are given."""

    __getattr__ = dict.__getitem__


def _trainer(**settings: Any) -> Any:
    """As much of a trainer as its loss reads."""
    accelerator = types.SimpleNamespace(device="cpu", gather_for_metrics=lambda x: x, gather=lambda x: x)
    defaults = {
        "accelerator": accelerator,
        "model": types.SimpleNamespace(training=True),
        "_metrics": {mode: defaultdict(list) for mode in ("train", "eval")},
        "aux_loss_enabled": False,
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "precompute_ref_logps": True,
        "beta": BETA,
        "label_smoothing": 0.0,
    }
    return types.SimpleNamespace(**(defaults | settings))


def _asked(sums: Tensor, tokens: Tensor) -> tuple[Any, dict[str, Tensor]]:
    """A model that finds answers with these sums, all of it on their first tokens, and the masks of its inputs."""
    longest = int(tokens.max())
    mask = ((torch.arange(longest + 1) <= tokens[:, None]) & (torch.arange(longest + 1) > 0)).long()

    def model(**_: Any) -> _Said:
        per_token = torch.zeros(len(sums), longest, dtype=torch.float64)
        per_token[:, 0] = sums
        same = torch.zeros_like(per_token)
        return _Said(log_probs=per_token, entropy=same, mean_logits=same, is_top1=same.bool())

    ids = torch.zeros_like(mask)
    return model, {"input_ids": ids, "attention_mask": ids + 1, "completion_mask": mask}


def _trl_dpo(kind: str, smoothing: float) -> list[float]:
    from trl.trainer.dpo_trainer import DPOTrainer

    trainer = _trainer(
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        loss_types=[kind],
        loss_weights=[1.0],
        label_smoothing=smoothing,
        use_weighting=False,
    )
    found = []
    for i in range(4):
        sums = torch.stack([CHOSEN[i], REJECTED[i]])
        model, inputs = _asked(sums, torch.stack([CHOSEN_TOKENS[i], REJECTED_TOKENS[i]]))
        inputs |= {"ref_chosen_logps": REF_CHOSEN[i : i + 1], "ref_rejected_logps": REF_REJECTED[i : i + 1]}
        found.append(float(DPOTrainer._compute_loss(trainer, model, inputs, False)))
    return found


def _trl_kto() -> list[float]:
    from trl.trainer.kto_trainer import KTOTrainer

    trainer = _trainer(
        calculate_KL=True,
        loss_type="kto",
        desirable_weight=1.5,
        undesirable_weight=0.5,
        _compute_kl_logps=lambda *_: torch.tensor(Z, dtype=torch.float64),
    )
    found = []
    for sums, reference, liked in ((CHOSEN, REF_CHOSEN, True), (REJECTED, REF_REJECTED, False)):
        for i in range(4):
            model, inputs = _asked(sums[i : i + 1], torch.tensor([5]))
            inputs |= {
                "label": torch.tensor([liked]),
                "ref_logps": reference[i : i + 1],
                "ref_KL_logps": torch.zeros(len(Z), dtype=torch.float64),
            }
            found.append(float(KTOTrainer._compute_loss(trainer, model, inputs, False)))
    return found


@pytest.mark.filterwarnings("ignore:You are importing from 'trl.experimental'")
def test_the_golden_numbers_are_trls() -> None:
    trl = pytest.importorskip("trl")
    if not trl.__version__.startswith("1.16."):
        pytest.skip(f"the golden numbers are of TRL 1.16, and this is {trl.__version__}")
    from trl.experimental.cpo.cpo_trainer import CPOTrainer
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    means = CHOSEN / CHOSEN_TOKENS, REJECTED / REJECTED_TOKENS
    found = {
        "sigmoid": _trl_dpo("sigmoid", 0.0),
        "sigmoid token": _trl_dpo("sigmoid_norm", 0.0),
        "robust": _trl_dpo("robust", SMOOTHING),
        "ipo token": _trl_dpo("ipo", 0.0),
        "hinge": _trl_dpo("hinge", 0.0),
        "kto": _trl_kto(),
        "orpo": (-ORPOTrainer.odds_ratio_loss(_trainer(), *means)[0]).tolist(),
    }
    simpo = {"loss_type": "simpo", "simpo_gamma": GAMMA, "alpha": 0.0}
    for name, smoothing in (("simpo", 0.0), ("simpo smoothed", SMOOTHING)):
        found[name] = CPOTrainer.cpo_loss(_trainer(**simpo, label_smoothing=smoothing), *means)[0].tolist()
    assert found.keys() == GOLDEN.keys()
    for name, values in found.items():
        assert values == pytest.approx(GOLDEN[name], abs=1e-6), name
