"""The loss of GRPO: against TRL, against formulas written out, and the traps of averages."""

import math
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from benchmarks.grpo_reference import ADVANTAGES, LENGTHS, LONGEST, NOW, OLD, REFERENCE, golden
from matura.align import rollouts
from matura.align.grpo import Judged, Surrogate, objective, pack_groups, token_losses
from matura.align.ppo import Tally
from matura.align.rollouts import Rollout
from matura.align.sequences import frozen, token_logprobs
from matura.core.settings import Draw
from matura.train.loop import train
from tests import tiny_models
from tests.align.completions import asked

# loss and gradient by NOW, made by benchmarks/grpo_reference.py with trl 1.16.0 (GRPOTrainer._compute_loss, float64).
GOLDEN: dict[tuple[str, float], tuple[float, tuple[float, ...]]] = {
    ("sequence", 0.0): (
        0.18523252912538335,
        (
            -0.1105170918,
            -0.07788007831,
            -0.1,
            0.3297442541,
            -0.03125,
            0,
            -0.02827616931,
            -0.02094750144,
            0.1518591159,
            0.1125,
        ),
    ),
    ("sequence", 0.1): (
        0.1887561428651048,
        (
            -0.1100566039,
            -0.07625757668,
            -0.09833333333,
            0.3215006478,
            -0.031875,
            0,
            -0.02657959915,
            -0.02429910167,
            0.1543901011,
            0.11375,
        ),
    ),
    ("token", 0.0): (
        -0.19544948300337567,
        (
            -0.1326205102,
            -0.09345609397,
            -0.12,
            0.1318977017,
            -0.05,
            0,
            -0.0452418709,
            -0.0335160023,
            0.1214872927,
            0.09,
        ),
    ),
    ("token", 0.1): (
        -0.19120496507428147,
        (
            -0.1320679247,
            -0.09150909201,
            -0.118,
            0.1286002591,
            -0.051,
            0,
            -0.04252735865,
            -0.03887856267,
            0.1235120809,
            0.091,
        ),
    ),
    ("constant", 0.0): (
        -0.09772474150168783,
        (
            -0.06631025508,
            -0.04672804698,
            -0.06,
            0.06594885083,
            -0.025,
            0,
            -0.02262093545,
            -0.01675800115,
            0.06074364634,
            0.045,
        ),
    ),
    ("constant", 0.1): (
        -0.09560248253714074,
        (
            -0.06603396236,
            -0.04575454601,
            -0.059,
            0.06430012956,
            -0.0255,
            0,
            -0.02126367932,
            -0.01943928134,
            0.06175604045,
            0.0455,
        ),
    ),
}


def tensors():
    advantages_N = torch.tensor(ADVANTAGES, dtype=torch.float64).repeat_interleave(torch.tensor(LENGTHS))
    now_N, old_N, reference_N = (torch.tensor(one, dtype=torch.float64) for one in (NOW, OLD, REFERENCE))
    return now_N.requires_grad_(True), old_N, reference_N, advantages_N


def reduced(reduction, kl):
    """Loss of the fixed tensors through the very functions that the objective uses."""
    settings = Surrogate(0.2, 0.28, kl, reduction=reduction, longest=LONGEST)
    now_N, old_N, reference_N, advantages_N = tensors()
    told = [Rollout(asked(), (1,), (2,) * n, (0.0,) * n, "", "stop", i) for i, n in enumerate(LENGTHS)]
    batch = pack_groups([Judged(tuple(told), ADVANTAGES)], settings)
    losses_N = token_losses(now_N, old_N, advantages_N, settings, reference_N if kl else None)
    loss = (losses_N * batch.weights_N.double()).sum() / batch.weight
    loss.backward()
    return float(loss.detach()), now_N.grad.tolist()


@pytest.mark.parametrize(("reduction", "kl"), GOLDEN)
def test_golden_losses_are_those_of_trl(reduction, kl):
    loss, gradient = reduced(reduction, kl)
    wanted, slope = GOLDEN[reduction, kl]
    assert loss == pytest.approx(wanted, abs=1e-6)
    assert gradient == pytest.approx(slope, abs=1e-6)


def trl_of_the_golden_numbers():
    trl = pytest.importorskip("trl")
    if not trl.__version__.startswith("1.16."):
        pytest.skip(f"the golden numbers are of TRL 1.16, and this is {trl.__version__}")
    return trl


def test_the_golden_losses_are_made_again_by_trl():
    trl_of_the_golden_numbers()
    again = golden(LENGTHS, NOW, OLD, REFERENCE, ADVANTAGES, longest=LONGEST)
    assert again.keys() == GOLDEN.keys()
    for key, (loss, slope) in again.items():
        assert loss == pytest.approx(GOLDEN[key][0], abs=1e-9)
        assert slope == pytest.approx(GOLDEN[key][1], abs=1e-9)


def rloo_of_trl():
    """The gradient of TRL's RLOO by `NOW`, at the first update after the answers were drawn."""
    trl = trl_of_the_golden_numbers()
    now_N = torch.tensor(NOW, dtype=torch.float64, requires_grad=True)
    mask_BT = torch.tensor([[i < n for i in range(max(LENGTHS))] for n in LENGTHS], dtype=torch.float64)
    now_BT = torch.zeros_like(mask_BT).masked_scatter(mask_BT.bool(), now_N)
    same = SimpleNamespace(gather=lambda x: x, reduce=lambda x, reduction: x)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=same,
        epsilon_low=0.2,
        epsilon_high=0.2,
        aux_loss_enabled=False,
        _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *a, **k: (now_BT, torch.zeros_like(now_BT), None),
    )
    ids = torch.ones(mask_BT.shape, dtype=torch.long)
    asked_for = {"prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids}
    drawn = {"completion_mask": mask_BT, "old_logps": now_BT.detach().sum(1)}
    advantages = torch.tensor(ADVANTAGES, dtype=torch.float64)
    trl.RLOOTrainer._compute_loss(trainer, None, asked_for | drawn | {"advantages": advantages}).backward()
    return now_N.grad


def test_the_first_update_is_trls_rloo_but_for_a_factor():
    now_N, _, _, advantages_N = tensors()
    losses_N = token_losses(now_N, now_N.detach(), advantages_N, Surrogate())
    (
        losses_N.sum() / len(LENGTHS)
    ).backward()  # by answers, as TRL; `token` and `constant` divide by other counts
    assert now_N.grad.tolist() == pytest.approx(rloo_of_trl().tolist(), abs=1e-12)


def test_the_loss_written_out():
    loss, _ = reduced("sequence", 0.1)
    total, at = 0.0, 0
    for length, advantage in zip(LENGTHS, ADVANTAGES, strict=True):
        answer = 0.0
        for now, old, reference in list(zip(NOW, OLD, REFERENCE, strict=True))[at : at + length]:
            ratio = math.exp(now - old)
            cut = min(max(ratio, 0.8), 1.28)
            answer -= min(ratio * advantage, cut * advantage)
            answer += 0.1 * ratio * (math.exp(reference - now) - 1 - (reference - now))
        total, at = total + answer / length, at + length
    assert loss == pytest.approx(total / 4, abs=1e-6)


def test_t26_what_a_long_answer_counts():
    """Ratio 1, advantages 1 and -1, 1 and 9 tokens: by answers they cancel, by tokens the long one wins."""
    told = [Rollout(asked(), (1,), (2,) * n, (0.0,) * n, "", "stop", i) for i, n in enumerate((1, 9))]
    found = {}
    for reduction in ("token", "sequence", "constant"):
        settings = Surrogate(reduction=reduction, longest=10)
        batch = pack_groups([Judged(tuple(told), (1.0, -1.0))], settings)
        losses_N = token_losses(torch.zeros(10), torch.zeros(10), torch.tensor([1.0] + [-1.0] * 9), settings)
        found[reduction] = float((losses_N * batch.weights_N).sum() / batch.weight)
    assert found == pytest.approx({"token": 8 / 10, "sequence": 0.0, "constant": 8 / 20}, abs=1e-6)


def test_t20_kl_has_the_gradient_of_the_reverse_divergence():
    """Exact expectation over a small distribution, drawn from older weights: k3 x ratio is right, k3 alone is not."""
    logits = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    old = torch.tensor([0.1, 0.4, -0.3], dtype=torch.float64).log_softmax(0)
    reference = torch.tensor([-0.5, 0.6, 0.2], dtype=torch.float64).log_softmax(0)
    zeros = torch.zeros(3, dtype=torch.float64)

    def slope(value):
        return torch.autograd.grad(value, logits)[0]

    p = logits.log_softmax(0)
    wanted = slope((p.exp() * (p - reference)).sum())
    p = logits.log_softmax(0)
    ours = slope((old.exp() * token_losses(p, old, zeros, Surrogate(kl=1.0), reference)).sum())
    assert ours == pytest.approx(wanted, abs=1e-12)
    p = logits.log_softmax(0)
    plain = slope((old.exp() * (torch.expm1(reference - p) - (reference - p))).sum())
    assert (plain - wanted).abs().max() > 0.05


@pytest.fixture(scope="module")
def written():
    """A model, and two groups of ragged answers with advantages, one of them even."""
    model, format = tiny_models.network(scale=2.0), tiny_models.chatml()
    prompts = [asked(str(n), "say " + "x" * n) for n in range(4)]
    found = rollouts.roll(model, format, prompts, k=3, draw=Draw(max_new_tokens=9, temperature=0.8), seed=2)
    return model, [
        Judged(tuple(found[3 * i : 3 * i + 3]), advantages)
        for i, advantages in enumerate(
            [(1.0, -1.0, 0.5), (0.0, 0.0, 0.0), (-1.0, 2.0, 0.1), (0.3, -0.2, 0.0)]
        )
    ]


def gradient(model, batches, settings):
    """The gradient of one step of the loop over these batches."""
    model.requires_grad_(True).zero_grad()
    found = {}

    class Keep(torch.optim.SGD):
        def step(self, closure=None):
            found.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

    optimizer = Keep(model.parameters(), lr=0.0)
    tally = Tally()
    step = next(
        train(
            model,
            iter(batches),
            objective(settings, tally),
            optimizer,
            lambda _: 0.0,
            steps=1,
            accumulate=len(batches),
            clip=1e9,
        )
    )
    return step, found, tally.taken()


@pytest.mark.parametrize("reduction", ["token", "sequence", "constant"])
@pytest.mark.parametrize("kl", [0.0, 0.2])
def test_t1_pieces_of_an_update_give_the_gradient_of_the_whole(written, reduction, kl):
    model, groups = written
    settings = Surrogate(kl=kl, temperature=0.8, reduction=reduction, longest=9)
    reference = frozen(tiny_models.network(seed=1, scale=2.0), 0.8) if kl else None
    whole = [pack_groups(groups, settings, reference)]
    pieces = [pack_groups([one], settings, reference) for one in groups]
    one, wanted, noted = gradient(model, whole, settings)
    many, found, also = gradient(model, pieces, settings)
    assert many.loss == pytest.approx(one.loss, abs=1e-6)
    assert also == pytest.approx(noted, abs=1e-6)
    for name, value in wanted.items():
        assert torch.allclose(found[name], value, rtol=1e-5, atol=1e-7), name


def test_t13_at_the_first_update_every_ratio_is_one(written):
    model, groups = written
    settings = Surrogate(temperature=0.8)
    _, _, noted = gradient(model, [pack_groups(groups, settings)], settings)
    assert noted["ratio"] == pytest.approx(1, abs=1e-5)
    assert noted["clip_share"] == 0
    assert noted["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert noted["policy_entropy"] > 0


def test_the_logged_divergence_is_that_of_the_policy_that_wrote(written):
    """Its tokens are the samples: k3 of log p_old - log p_new, not the other way round."""
    model, groups = written
    settings = Surrogate(temperature=0.8)
    batch = pack_groups(groups, settings)
    shift_N = torch.linspace(0.0, 1.5, len(batch.old_N))
    other = replace(batch, old_N=batch.old_N + shift_N)
    _, _, noted = gradient(model, [other], settings)
    wanted = (torch.exp(-shift_N) - 1 + shift_N).mean()
    assert noted["approx_kl"] == pytest.approx(float(wanted), abs=1e-3)


def test_t27_even_groups_are_not_read_without_a_reference_and_still_count(written):
    model, groups = written
    settings = Surrogate(temperature=0.8)
    batch = pack_groups(groups, settings)
    assert len(batch.answers.counts) == 9
    assert batch.weight == sum(len(one.ids) for group in groups for one in group.rollouts)
    even = pack_groups(groups[1:2], settings)
    step, found, noted = gradient(model, [even], settings)
    assert step.loss == 0
    assert not noted
    assert all(not value.any() for value in found.values())
    assert len(pack_groups(groups, settings, frozen(model, 0.8)).answers.counts) == 12


def test_better_answers_become_likelier(written):
    model, groups = written
    settings = Surrogate(temperature=0.8, reduction="sequence")
    batch = pack_groups(groups[2:3], settings)
    _, found, _ = gradient(model, [batch], settings)
    with torch.no_grad():
        before = token_logprobs(model, batch.answers, 0.8).logprobs_N
        for name, parameter in model.named_parameters():
            parameter -= 1e-4 * found[name]
        after = token_logprobs(model, batch.answers, 0.8).logprobs_N
        for name, parameter in model.named_parameters():
            parameter += 1e-4 * found[name]
    change = [float(part.mean()) for part in batch.answers.per_answer(after - before)]
    assert change[1] > change[0]
