"""Anchors: the plain formulas, nothing at the start, nothing without strength, and that they hold."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import islice

import pytest
import torch
from torch import Tensor

from matura.core.errors import ConfigError
from matura.core.forgetting_settings import Forgetting, Part
from matura.core.peft_settings import BottleneckConfig, LoraConfig, PrefixConfig, Tuning
from matura.core.settings import OptimizerConfig
from matura.model.divergence import kl_divergence_reference
from matura.model.peft import tuning, updates
from matura.model.peft.lora import apply_lora, merge_lora
from matura.model.transformer import Transformer
from matura.train import anchors
from matura.train.batches import Example, PackedBatch, PackedBatches, Rows, pack
from matura.train.loop import Objective, Step, train
from matura.train.objectives import next_token
from matura.train.optim import build_optimizer, build_schedule
from tests.model.tiny import build, llama_config
from tests.train.test_batches import examples

METHODS = {
    "lora": Tuning(lora=LoraConfig(rank=2)),
    "embed": Tuning(lora=LoraConfig(rank=2, targets=("all-linear", "embed"))),
    "prefix": Tuning(method="prefix", prefix=PrefixConfig(tokens=3)),
    "bottleneck": Tuning(method="bottleneck", bottleneck=BottleneckConfig(reduction=4)),
}


def batch() -> PackedBatch:
    """Two sources: five examples and three of replay."""
    return replace(pack(examples(8)), sources=(5, 3))


def tuned(method: str, parent: Transformer) -> Transformer:
    """A child that has moved away."""
    child = copy.deepcopy(parent)
    moved = torch.Generator().manual_seed(3)
    if method != "full":
        tuning.apply(child, METHODS[method], seed=1)
    with torch.no_grad():
        for parameter in child.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=moved, dtype=parameter.dtype)
                parameter.add_(noise, alpha=0.05)
    return child


def gradients(loss: Tensor, model: Transformer) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))


def all_logits(model: Transformer, one: PackedBatch) -> Tensor:
    return model.logits(model.decode(one.ids_1T, mask=one.mask)[0, one.where_N])


@pytest.mark.parametrize("method", ["full", *METHODS])
@pytest.mark.parametrize("part", ["replay", "new", "both"])
def test_kl_to_the_parent_is_the_plain_formula(method: str, part: Part) -> None:
    parent, one = build(llama_config()), batch()
    child = tuned(method, parent)
    total = anchors.objective(Forgetting(kl=0.7, kl_on=part), child, parent)(child, one)
    border = sum(one.mask.lengths[:5])
    weights_N = one.weights_N.clone()
    weights_N[(one.where_N >= border) if part == "new" else (one.where_N < border)] = 0
    if part == "both":
        weights_N = one.weights_N
    q_NV, p_NV = all_logits(child, one).log_softmax(-1), all_logits(parent, one).detach().log_softmax(-1)
    expected = next_token(child, one) + 0.7 * ((p_NV.exp() * (p_NV - q_NV)).sum(-1) * weights_N).sum()
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=0)
    for mine, plain in zip(gradients(total, child), gradients(expected, child), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-8, atol=1e-10)
    assert abs(float((total - next_token(child, one)).detach())) > 0.1


@pytest.mark.parametrize("method", ["full", "lora", "embed"])
def test_l2_to_the_parent_is_the_squared_distance_of_the_weights(method: str) -> None:
    parent, one = build(llama_config()), batch()
    child = tuned(method, parent)
    total = anchors.objective(Forgetting(l2=0.3), child, parent)(child, one)
    if method == "full":
        pairs = zip(child.parameters(), parent.parameters(), strict=True)
        distance = sum(((a - b.detach()) ** 2).sum() for a, b in pairs)
    else:
        distance = sum(((one.scale * one.b @ one.a) ** 2).sum() for one in updates.updated(child))
    expected = next_token(child, one) + 0.15 * distance * one.weight
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=0)
    for mine, plain in zip(gradients(total, child), gradients(expected, child), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-8, atol=1e-10)


DEALT = ([(8, 8)], [(1, 1)] * 8, [(2, 0), (0, 3), (6, 5)])
"""Rows of one step, as (new examples, examples of replay)."""
Anchored = Callable[[Transformer, Transformer], Objective]
"""(child, parent) -> what is trained."""


def stepped(method: str, anchored: Anchored, rows: list[tuple[int, int]]) -> tuple[Step, list[Tensor]]:
    """One step of plain descent over all the rows, and the weights after it."""
    parent = build(llama_config())
    child = tuned(method, parent)
    new, old = iter(examples(8)), iter(examples(8, seed=9))
    batches = [replace(pack([*islice(new, n), *islice(old, m)]), sources=(n, m)) for n, m in rows]
    learned = [p for p in child.parameters() if p.requires_grad]
    objective, descent = anchored(child, parent), torch.optim.SGD(learned, lr=1.0)
    (step,) = train(
        child, iter(batches), objective, descent, lambda step: 1e-2, steps=1, accumulate=len(rows), clip=1e9
    )
    return step, learned


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize(
    "settings",
    [
        Forgetting(),
        Forgetting(kl=0.7),
        Forgetting(kl=0.7, kl_on="new"),
        Forgetting(l2=0.3),
        Forgetting(kl=0.7, kl_on="both", l2=0.3),
    ],
    ids=["free", "replay", "new", "l2", "both"],
)
def test_anchored_losses_and_replay_are_the_same_however_a_step_is_dealt(
    method: str, settings: Forgetting
) -> None:
    """T1: one row of all equals a row for each, and rows that hold only what is new, or only replay."""
    whole, *others = (stepped(method, partial(anchors.objective, settings), rows) for rows in DEALT)
    for step, weights in others:
        assert step.loss == pytest.approx(whole[0].loss, rel=1e-6)  # logged in float32
        assert step.grad_norm == pytest.approx(whole[0].grad_norm, rel=1e-10)
        for mine, theirs in zip(weights, whole[1], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_an_anchor_that_forgets_the_weight_of_its_rows_is_found_out() -> None:
    """Added to every row as it is, the distance would count once for each row of a step."""

    def wrong(child: Transformer, parent: Transformer) -> Objective:
        start = dict(parent.named_parameters())
        return lambda model, one: next_token(model, one) + anchors.squared_distance(model, start)

    one, eight = (stepped("full", wrong, rows)[0] for rows in DEALT[:2])
    assert eight.grad_norm != pytest.approx(one.grad_norm, rel=1e-3)


@pytest.mark.parametrize("method", ["lora", "embed"])
def test_an_update_is_as_far_from_the_parent_as_its_merged_weights(method: str) -> None:
    parent = build(llama_config())
    child = tuned(method, parent)
    size = float(anchors.squared_distance(child, {}).detach())
    merged = merge_lora(child).requires_grad_(True)
    distance = float(anchors.squared_distance(merged, dict(parent.named_parameters())).detach())
    assert size == pytest.approx(distance, rel=1e-10)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_the_start_an_anchor_is_exactly_nothing(method: str, dtype: torch.dtype) -> None:
    parent, one = build(llama_config(), dtype=dtype), batch()
    child = copy.deepcopy(parent)
    if method == "lora":
        apply_lora(child, LoraConfig(rank=2), seed=1)
    plain = next_token(child, one)
    for settings in (Forgetting(kl=5.0, kl_on="both"), Forgetting(l2=5.0)):
        total = anchors.objective(settings, child, parent)(child, one)
        assert torch.equal(total, plain)
        pairs = zip(gradients(total, child), gradients(next_token(child, one), child), strict=True)
        assert all(torch.equal(mine, alone) for mine, alone in pairs)
    features_ND = anchors.features(child, one)
    teacher = anchors.without_updates(child) if method == "lora" else anchors.frozen(parent)
    assert not anchors.to_predictions(5.0, teacher, "both")(child, one, features_ND).any()
    # The parent reads a part of the row by itself, whose sums may end in other bits.
    for part in ("replay", "new"):
        total = anchors.objective(Forgetting(kl=1.0, kl_on=part), child, parent)(child, one)
        assert abs(float((total - plain).detach())) <= (1e-3 if dtype == torch.float32 else 1e-11)


def test_without_strength_the_objective_is_the_plain_one() -> None:
    model = build(llama_config())
    assert anchors.objective(Forgetting(), model, model) is next_token


def test_the_parent_sees_only_its_part_and_a_batch_of_one_source_has_no_replay() -> None:
    one = batch()
    chosen_N, replay = anchors.cut_out(one, "replay")
    assert replay.mask.lengths == one.mask.lengths[5:]
    assert int(chosen_N.sum()) == len(replay.where_N) > 0
    new_N, new = anchors.cut_out(one, "new")
    assert torch.equal(chosen_N, ~new_N)
    assert new.tokens + replay.tokens == one.tokens
    alone = pack(examples(3))
    assert not len(anchors.cut_out(alone, "replay")[1].where_N)
    assert anchors.cut_out(alone, "new")[1].tokens == alone.tokens
    model = build(llama_config())
    other = tuned("full", model)
    loss = anchors.objective(Forgetting(kl=1.0), other, model)
    assert torch.equal(loss(other, alone), next_token(other, alone))


def test_a_mixture_says_how_many_examples_each_source_gave() -> None:
    sources = [Rows(examples(6), tokens=40, seed=0), Rows(examples(6, seed=2), tokens=30, seed=1)]
    for _ in range(5):
        made = next(PackedBatches(sources))
        assert len(made.sources) == 2
        assert sum(made.sources) == len(made.mask.lengths)
        assert sum(made.mask.lengths[: made.sources[0]]) <= 40


def test_updates_are_back_after_a_look_at_the_parent_even_after_an_error() -> None:
    child = tuned("lora", build(llama_config()))
    before = [module.scale for module in updates.updated(child)]
    trained = [p.requires_grad for p in child.parameters()]
    with updates.off(child):
        assert not any(module.scale for module in updates.updated(child))
        assert not any(p.requires_grad for p in child.parameters())
    with pytest.raises(IndexError), updates.off(child):
        child.decode(torch.tensor([[1000]]))
    assert [module.scale for module in updates.updated(child)] == before
    told, _ = anchors.without_updates(child.train())(batch())
    assert not told.requires_grad
    assert [module.scale for module in updates.updated(child)] == before
    assert [p.requires_grad for p in child.parameters()] == trained
    assert child.training


def test_a_weight_that_the_parent_has_not_is_told() -> None:
    model = build(llama_config())
    with pytest.raises(ConfigError, match=r"forgetting\.l2: the parent has no weight embed\.weight"):
        anchors.squared_distance(model, {})


@cache
def learn(method: str, settings: Forgetting, steps: int = 40) -> tuple[float, float]:
    """Loss on new texts and divergence on old ones, after training on the new ones with a little of the old."""
    parent = build(llama_config(), dtype=torch.float32, scale=3.0)
    child = copy.deepcopy(parent)
    if method == "lora":
        apply_lora(child, LoraConfig(rank=8), seed=1)
    new = [Example(tuple((7 * i * i + k) % 97 for i in range(30)), (True,) * 30) for k in range(4)]
    old = examples(8, seed=9)
    batches = PackedBatches([Rows(new, tokens=60, seed=0), Rows(old[:4], tokens=60, seed=1)])
    config = OptimizerConfig(lr=1e-2 if method == "full" else 2e-2, schedule="constant", warmup=0.0)
    optimizer, objective = build_optimizer(child, config), anchors.objective(settings, child, parent)
    list(train(child, batches, objective, optimizer, build_schedule(config, steps), steps=steps))
    with torch.no_grad():
        fresh, kept = pack(new), pack(old)
        loss = float(next_token(child, fresh)) / fresh.weight
        features = [anchors.features(one, kept) for one in (child, parent)]
        ones_N = torch.ones_like(kept.weights_N)
        kl = kl_divergence_reference(features[0], child.unembedding, features[1], parent.unembedding, ones_N)
    return loss, float(kl) / len(kept.where_N)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("full", Forgetting(kl=4.0)),
        ("full", Forgetting(l2=0.02)),
        ("lora", Forgetting(kl=4.0)),
        ("lora", Forgetting(l2=0.1)),
    ],
)
def test_an_anchored_model_moves_less_than_a_free_one_and_still_learns(
    method: str, settings: Forgetting
) -> None:
    start, nowhere = learn(method, Forgetting(), steps=0)
    free_loss, free_kl = learn(method, Forgetting())
    loss, kl = learn(method, settings)
    assert nowhere == pytest.approx(0, abs=1e-6)
    assert kl < 0.8 * free_kl
    assert loss < start - 0.5 * (start - free_loss)
