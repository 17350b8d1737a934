"""The traps of PPO, on a tiny model: what is trained, from where, and what must not change anything."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from matura.align import rollouts
from matura.align.episodes import TRACKS, Episode, pack_episodes
from matura.align.experience import Scale, episodes, read, shaped
from matura.align.iterations import Iterations, Plan
from matura.align.rewards import Part, Weighted
from matura.align.rollouts import Rollout
from matura.align.sequences import frozen
from matura.align.value_head import with_value
from matura.core.errors import MaturaError
from matura.core.peft_settings import Tuning
from matura.core.ppo_settings import KlPenalty, Scoring, Updates, ValueModel
from matura.core.preferences import Ranking
from matura.core.rollout_settings import Rollouts
from matura.core.settings import OptimizerConfig
from matura.model.peft import tuning
from matura.model.peft.leaves import trained
from matura.train import optim
from matura.train.loop import Step, train
from tests.tiny_models import chatml, network

FORMAT = chatml()
PROMPTS = [Ranking(f"p{n}", ({"role": "user", "content": f"say {n}" * (n % 3 + 1)},)) for n in range(8)]
STOP = FORMAT.stop_ids[0]


def lengths(completions: Any) -> list[float]:
    return [float(len(one.text)) for one in completions]


def practice(
    *, value: str = "head", method: str = "lora", reward: Any = lengths, seed: int = 0, **settings: Any
) -> Iterations:
    """Iterations of 8 prompts with 2 answers each, on a policy that writes definite things."""
    kl = settings.get("kl", KlPenalty(stop=None))
    updates = Updates(**({"epochs": 2, "minibatches": 2} | settings.get("updates", {})))
    rolls = Rollouts(samples=2, max_new_tokens=5)
    plan = Plan(8, rolls, kl, settings.get("scoring", Scoring()), updates, 0.1, seed)
    parent = network(scale=2.0)
    policy = network(scale=2.0) if method == "full" else tuning.twin(parent)
    tuning.apply(policy, Tuning(method=method), 0)
    model = with_value(policy, parent, ValueModel(kind=value))
    rewards = Weighted((Part("own", 1.0, reward),))
    return Iterations(model, frozen(parent, 1.0), FORMAT, PROMPTS, rewards, plan)


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trained(model).items()}


def updates(made: Iterations, count: int) -> Iterator[Step]:
    """Train for some updates."""
    optimizer = optim.build_optimizer(made.model, OptimizerConfig(lr=1e-2))
    pieces = made.plan.updates.accumulate
    return train(
        made.model, made, made.objective, optimizer, lambda step: 1e-2, steps=count, accumulate=pieces
    )


def steps(made: Iterations, count: int) -> list[Step]:
    """The updates, made."""
    return list(updates(made, count))


def test_one_piece_or_many_give_the_same_update() -> None:
    """T1: policy, values and entropy together."""
    whole, pieces = practice(), practice(updates={"accumulate": 4})
    one, four = steps(whole, 1)[0], steps(pieces, 1)[0]
    assert four.loss == pytest.approx(one.loss, abs=1e-6)
    assert four.grad_norm == pytest.approx(one.grad_norm, rel=1e-5)
    assert pieces.notes() == pytest.approx(whole.notes(), rel=1e-5, abs=1e-6)
    begun = trained(practice().model)
    for name, tensor in trained(whole.model).items():
        moved, other = tensor - begun[name], trained(pieces.model)[name] - begun[name]
        assert torch.allclose(moved, other, rtol=1e-3, atol=1e-6), name


def test_before_the_first_update_every_ratio_is_one() -> None:
    """T13: and the clip takes nothing there; later it is not one."""
    made = practice()
    for step in updates(made, 8):
        notes = made.notes()
        if (step.step - 1) % 4 == 0:
            assert notes["ratio"] == pytest.approx(1, abs=1e-6)
            assert notes["approx_kl"] < 1e-9
            assert notes["clip_share"] == 0
            assert notes["rollout_gap"] < 1e-4
        else:
            assert abs(notes["ratio"] - 1) > 1e-6
        assert made.iteration == (step.step + 3) // 4


def test_another_model_than_the_one_that_wrote_is_refused() -> None:
    made = practice()
    batch = next(made)
    with torch.no_grad():
        trained(made.model.policy)["decoder.blocks.0.mixers.0.q.b"].add_(0.05)
    with pytest.raises(MaturaError, match="not the one that wrote"):
        made.objective(made.model, batch)
    stale = replace(batch, is_fresh=False)
    assert torch.isfinite(made.objective(made.model, stale))


def test_dropout_stays_off() -> None:
    made = practice()
    for module in made.model.modules():
        if hasattr(module, "dropout"):
            setattr(module, "dropout", 0.5)  # noqa: B010 (a module's attribute of any kind)
    assert not made.model.train().training
    (step,) = steps(made, 1)
    assert step.loss == pytest.approx(steps(practice(), 1)[0].loss, abs=1e-6)


def episode(ids: tuple[int, ...], advantage: float) -> Episode:
    """One with what the untrained policy thinks of it."""
    made = practice(method="full")
    prompt = tuple(FORMAT.prompt(PROMPTS[0].messages, ()))
    answer = Rollout(PROMPTS[0], prompt, ids, (0.0,) * len(ids), "", "stop")
    found = read(made.model, made.reference, [answer], 1.0)
    count = len(ids)
    return Episode(
        prompt,
        ids,
        tuple(found.logprobs_N.tolist()),
        tuple(found.reference_N.tolist()),
        (0.0,) * count,
        (advantage,) * count,
        (0.0,) * count,
    )


@pytest.mark.parametrize("ids", [(STOP,), (65, 66, STOP), (STOP, 65, STOP)])
def test_the_stop_token_is_trained_whatever_its_id(ids: tuple[int, ...]) -> None:
    """Masks are lengths: no id is taken for padding, and an answer that ends at once has its one token."""
    made = practice(method="full")
    batch = pack_episodes([episode(ids, 1.0)])
    assert batch.answers.targets_N.tolist() == list(ids)
    assert batch.weight == len(ids)
    before_N = made.model.read(batch.answers, 1.0).logprobs_N
    made.objective(made.model, batch).backward()
    with torch.no_grad():
        for parameter in made.model.policy.parameters():
            if parameter.grad is not None:
                parameter.sub_(1e-3 * parameter.grad)
    after_N = made.model.read(batch.answers, 1.0).logprobs_N
    assert bool((after_N > before_N).all())


def written(made: Iterations, count: int = 6) -> list[Rollout]:
    return rollouts.roll(
        made.model.policy, FORMAT, PROMPTS[: count // 2], k=2, draw=made.plan.rollouts.draw, seed=1
    )


def test_what_is_read_of_an_answer_does_not_depend_on_its_neighbours() -> None:
    """T22: log-probabilities, the reference's, and values."""
    made = practice(value="critic")
    with torch.no_grad():
        made.model.value.out.weight.normal_(generator=torch.Generator().manual_seed(0))
    answers = written(made)
    whole = read(made.model, made.reference, answers, 1.0)
    counts = [len(one.ids) for one in answers]
    for i, one in enumerate(answers):
        alone = read(made.model, made.reference, [one], 1.0)
        for name in ("logprobs_N", "reference_N", "values_N"):
            part_N = getattr(whole, name).split(counts)[i]
            assert torch.allclose(part_N, getattr(alone, name), atol=1e-5), name
        assert float(whole.after_S[i]) == pytest.approx(float(alone.after_S[0]), abs=1e-5)


def test_a_cut_answer_is_judged_or_goes_on() -> None:
    made = practice()
    with torch.no_grad():
        made.model.value.out.weight.normal_(generator=torch.Generator().manual_seed(0))
    answers = [replace(one, end="length") for one in written(made, 2)]
    answers[1] = replace(answers[1], end="stop")
    found = read(made.model, made.reference, answers, 1.0)
    assert shaped([3.0, 3.0], answers, Scoring(missing_stop=0.5), Scale(1.0, 2.0)) == [0.5, 1.0]
    bootstrap = Scoring(cut="bootstrap", missing_stop=0.5)
    assert shaped([3.0, 3.0], answers, bootstrap, Scale(1.0, 2.0)) == [-0.5, 1.0]
    free, exact = KlPenalty(coefficient=0), Updates(lam=1.0)
    told, numbers = episodes(answers, [3.0, 3.0], found, 0.0, Scale(1.0, 2.0), free, bootstrap, exact)
    after = float(found.after_S[0])
    assert told[0].returns == pytest.approx([after - 0.5] * len(answers[0].ids), abs=1e-5)
    assert told[1].returns == pytest.approx([1.0] * len(answers[1].ids), abs=1e-5)
    judged, _ = episodes(answers, [3.0, 3.0], found, 0.0, Scale(1.0, 2.0), free, Scoring(), exact)
    assert judged[0].returns == pytest.approx([1.0] * len(answers[0].ids), abs=1e-5)
    white = torch.tensor([value for one in told for value in one.advantages])
    assert float(white.mean()) == pytest.approx(0, abs=1e-5)
    assert float(white.std(correction=0)) == pytest.approx(1, abs=1e-5)
    assert numbers["kl"] == pytest.approx(0, abs=1e-6)


def test_far_from_the_rollouts_the_rest_of_an_iteration_is_left_out() -> None:
    made = practice(kl=KlPenalty(stop=1e-7))
    seen = []
    for step in updates(made, 8):
        seen.append(step.weight > 0)
        if step.step == 2:
            after = weights(made.model)
        if step.step == 4:
            assert made.notes()["left_out"] == 1
            assert all(torch.equal(after[name], one) for name, one in weights(made.model).items())
    assert seen == [True, True, False, False] * 2  # the first update of an iteration moves nothing yet


def test_how_far_the_last_update_went_does_not_end_the_next_iteration() -> None:
    made = practice(kl=KlPenalty(stop=1e-7), updates={"epochs": 1})
    for step in updates(made, 4):
        assert step.weight > 0, step.step
        if step.step % 2 == 0:
            assert made.is_far  # so nothing but a new iteration could follow


@pytest.mark.parametrize("value", ["head", "critic"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_reference_stays_as_it_was(value: str, method: str) -> None:
    made = practice(value=value, method=method)
    batch = next(made)
    before_N = made.reference(batch.answers)
    own_N = made.model.read(batch.answers, 1.0).logprobs_N
    steps(made, 3)
    assert torch.equal(made.reference(batch.answers), before_N)
    assert not torch.allclose(made.model.read(batch.answers, 1.0).logprobs_N, own_N)
    names = trained(made.model)
    assert {name.partition(".")[0] for name in names} == {"policy", "value", *([value] * (value == "critic"))}
    if method == "lora":
        assert all(name.endswith((".a", ".b")) for name in names if name.startswith("policy"))
    if value == "critic":
        assert all(name.endswith((".a", ".b")) for name in names if name.startswith("critic"))


@pytest.mark.parametrize(("value", "reaches"), [("head", True), ("critic", False)])
def test_only_a_head_teaches_the_policy_to_foresee(value: str, reaches: bool) -> None:
    made = practice(value=value)
    with torch.no_grad():
        made.model.value.out.weight.normal_(generator=torch.Generator().manual_seed(0))
    batch = next(made)
    even = replace(batch, advantages_N=torch.zeros_like(batch.advantages_N))
    made.objective(made.model, even).backward()
    grads = [p.grad for p in made.model.policy.parameters() if p.grad is not None]
    assert any(bool(grad.any()) for grad in grads) is reaches
    head = made.model.value.out.weight.grad
    assert head is not None
    assert bool(head.any())


def test_equal_rewards_teach_nothing() -> None:
    (step,) = steps(practice(reward=lambda completions: [1.0] * len(completions)), 1)
    assert step.grad_norm == 0


def test_a_reward_that_judges_nothing_is_refused() -> None:
    with pytest.raises(MaturaError, match="none of 16 answers could be judged by own"):
        next(practice(reward=lambda completions: [None] * len(completions)))


def test_a_later_iteration_of_which_nothing_is_judged_is_left_out() -> None:
    rounds: list[int] = []

    def now_and_then(completions: Any) -> list[float | None]:
        rounds.append(len(rounds) + 1)
        return [None if rounds[-1] == 2 else float(len(one.text)) for one in completions]

    made = practice(reward=now_and_then, updates={"epochs": 1})
    assert [step.weight > 0 for step in updates(made, 6)] == [True, True, False, False, True, True]


def test_answers_that_were_not_judged_are_left_out() -> None:
    def some(completions: Any) -> list[float | None]:
        return [None if one.prompt.id < "p4" else 1.0 * len(one.text) for one in completions]

    made = practice(reward=some)
    next(made)
    assert len(made.episodes) == 8
    assert made.notes()["unjudged"] == 0.5


def test_a_state_is_json_and_goes_on() -> None:
    made, other = practice(), practice()
    for _ in range(3):
        next(made)
    stored = json.loads(json.dumps(made.state()))
    other.restore(stored)
    mine, theirs = next(made), next(other)
    assert torch.equal(mine.answers.ids_1T, theirs.answers.ids_1T)
    for name in TRACKS:
        assert torch.equal(getattr(mine, f"{name}_N"), getattr(theirs, f"{name}_N")), name
    assert made.state()["episodes"] == []  # learned from for the last time
