"""The objective of preferences: equal models, accumulation, dropout, KTO's divergence, and what a look tells."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from matura.align.dpo import Heldout, Objective
from matura.align.preference_batches import (
    Known,
    PreferenceBatches,
    divergence,
    mismatched,
    pack,
    unpaired,
)
from matura.align.preferred import Choice, Preferred, Thumb, from_pairs
from matura.align.sequences import Prompted, pack_answers, sequence_logprobs
from matura.core.dpo_settings import PreferenceLoss
from matura.core.peft_settings import LoraConfig
from matura.data.preferences import pairs
from matura.model.peft.lora import apply_lora
from matura.model.transformer import Transformer
from tests.align.preferences import pair, ranked
from tests.tiny_models import chatml, network

LOSSES: dict[str, dict[str, Any]] = {
    "sigmoid": {},
    "smoothed": {"smoothing": 0.1},
    "per token": {"scale": "token"},
    "nll": {"nll": 0.5},
    "robust": {"kind": "robust", "smoothing": 0.1},
    "ipo": {"kind": "ipo"},
    "ipo per token": {"kind": "ipo", "scale": "token", "nll": 0.2},
    "hinge": {"kind": "hinge", "nll": 0.1},
    "kto": {"kind": "kto", "desirable": 1.5},
    "orpo": {"kind": "orpo"},
    "simpo": {"kind": "simpo", "nll": 0.1},
}
WITH_REFERENCE = [name for name, one in LOSSES.items() if one.get("kind") not in ("orpo", "simpo")]


def policy(seed: int = 0) -> Transformer:
    """A model with updates that have moved it from its parent."""
    model = apply_lora(network(scale=1.5), LoraConfig(rank=2))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(seed))
    return model


@torch.no_grad()
def known(settings: PreferenceLoss, count: int = 8) -> list[Known]:
    """Pairs and rankings of answers of many lengths, with the parent's log-probabilities."""
    rankings = [(ranked if n % 3 == 0 else pair)(n) for n in range(count)]
    made = from_pairs((one for row in rankings for one in pairs.of(row)), chatml(), 200).preferred
    others = [Prompted(one.prompt, ()) for one in made]
    if settings.kind == "kto":
        made = [unpaired(one) for one in made]
        others = mismatched(made, 200, 0)
    out = []
    for one, other in zip(made, others, strict=True):
        asked = Prompted(one.prompt, (*one.answers, *other.answers))
        told = sequence_logprobs(network(scale=1.5), pack_answers([asked])).logprobs_S.tolist()
        out.append(
            Known(one, tuple(told[: len(one.answers)]), other.answers[0] if other.answers else (), told[-1])
        )
    return out


def gradients(model: Transformer, settings: PreferenceLoss, batches: list[Any]) -> tuple[float, list[Tensor]]:
    """Loss and gradients of one update, as the loop makes them."""
    weight = sum(batch.weight for batch in batches)
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.grad = None
    objective, total = Objective(settings), 0.0
    for batch in batches:
        loss = objective(model, batch)
        (loss / weight).backward()
        total += float(loss.detach()) / weight
    grads = [p.grad for p in trained if p.grad is not None]
    assert len(grads) == len(trained)
    return total, [one.clone() for one in grads]


@pytest.mark.parametrize("name", LOSSES)
def test_one_batch_equals_many(name: str) -> None:
    """T1: 1 x 8 equals 8 x 1 for every loss, with and without a plain loss beside it."""
    settings = PreferenceLoss(**LOSSES[name])
    examples, model = known(settings), policy()
    z = divergence(model, [examples])
    together = gradients(model, settings, [pack(examples, z=z)])
    apart = gradients(model, settings, [pack([one], z=z) for one in examples])
    assert together[0] == pytest.approx(apart[0], rel=1e-5)
    assert any(one.abs().max() > 1e-6 for one in together[1])
    for a, b in zip(together[1], apart[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_a_mean_of_means_would_not_be_equal() -> None:
    """The control: rankings weigh the same, tokens do not, so an average over batches by tokens differs."""
    settings = PreferenceLoss(nll=0.5)
    examples, model = known(settings), policy()
    (_, right), parts = (
        gradients(model, settings, [pack(examples)]),
        [gradients(model, settings, [pack(examples[:2])]), gradients(model, settings, [pack(examples[2:])])],
    )
    wrong = [(a + b) / 2 for a, b in zip(parts[0][1], parts[1][1], strict=True)]
    assert max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(wrong, right, strict=True)) > 1e-2


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_equal_models_are_equal(name: str) -> None:
    """T13: at the first update the margin is 0 and the loss that of equal models."""
    settings = PreferenceLoss(**LOSSES[name] | {"nll": 0.0})
    model = apply_lora(network(scale=1.5), LoraConfig(rank=2))
    examples = known(settings)
    objective = Objective(settings)
    batch = pack(examples, z=divergence(model, [examples]))
    loss = float(objective(model, batch).detach()) / batch.weight
    notes = objective.notes()
    assert notes["reward_chosen"] == pytest.approx(0, abs=1e-5)
    assert notes["chosen_change"] == pytest.approx(0, abs=1e-5)
    if name == "sigmoid":
        assert loss == pytest.approx(math.log(2), abs=1e-6)
        assert notes["margin"] == pytest.approx(0, abs=1e-5)
    if name == "kto":
        assert loss == pytest.approx(0.5 * (1.5 + 1) / 2, abs=1e-6)


def test_dropout_is_off_in_all_of_the_model() -> None:
    """T13: of the model's own settings and of its updates."""
    config = network().config
    assert config.decoder is not None
    decoder = config.decoder.model_copy(update={"dropout": 0.4})
    wet = Transformer(config.model_copy(update={"decoder": decoder}))
    wet.load_state_dict(network(scale=1.5).state_dict())
    model = apply_lora(wet, LoraConfig(rank=2, dropout=0.5))
    model.train()
    with torch.no_grad():
        noisy = sequence_logprobs(
            model, pack_answers([one.preferred.prompted for one in known(PreferenceLoss())])
        )
    model.train()
    examples = known(PreferenceLoss())
    batch = pack(examples)
    assert (noisy.logprobs_S - batch.reference_S).abs().max() > 0.1  # the control: it is there
    loss = float(Objective(PreferenceLoss())(model, batch).detach()) / batch.weight
    assert loss == pytest.approx(math.log(2), abs=1e-6)


def test_the_parent_never_moves_and_only_updates_have_gradients() -> None:
    """T15: frozen weights stay bit for bit, and what the reference says with them."""
    model, parent = policy(), network(scale=1.5)
    before = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    examples = known(PreferenceLoss())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        Objective(PreferenceLoss())(model, pack(examples)).backward()
        assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
        optimizer.step()
    for name, p in model.named_parameters():
        assert p.requires_grad or torch.equal(p, before[name])
    again = known(PreferenceLoss())
    assert [one.reference for one in again] == [one.reference for one in examples]
    assert torch.equal(parent.embed.weight, network(scale=1.5).embed.weight)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_nobody_is_compared_with_an_answer_to_its_own_prompt(count: int) -> None:
    """T16: nor an odd one out with its own."""
    made = [Preferred(f"{n}", (1, n // 2), ((10 + n // 2, n),), (), (Thumb(0, True),)) for n in range(count)]
    others = mismatched(made, 100, seed=3)
    for mine, other in zip(made, others, strict=True):
        assert other.prompt == mine.prompt
        if count > 2:  # else all prompts are the same one
            ((answer),) = other.answers
            assert answer[0] != mine.answers[0][0]
        else:
            assert not other.answers
    assert mismatched(made, 2, seed=3) == [Prompted(one.prompt, ()) for one in made]


def test_the_divergence_of_kto_is_one_number_of_the_whole_update() -> None:
    """T16: of all its batches, not of the last."""
    settings = PreferenceLoss(kind="kto")
    examples, model = known(settings), policy()
    examples = [replace(one, mismatch_reference=one.mismatch_reference - 5) for one in examples]
    batches = PreferenceBatches(examples, tokens=120, seed=0, accumulate=3, model=model)
    drawn = [next(batches) for _ in range(3)]
    assert len({batch.z for batch in drawn}) == 1
    rows = PreferenceBatches(examples, tokens=120, seed=0).rows
    update = [rows.next() for _ in range(3)]
    assert drawn[0].z == divergence(model, update)
    each = [divergence(model, [row]) for row in update]
    assert drawn[0].z != each[-1]  # not the last batch's
    assert drawn[0].z > 0
    backwards = [replace(one, mismatch_reference=one.mismatch_reference + 1e3) for one in examples]
    assert divergence(model, [backwards]) == 0


def test_batches_go_on_from_where_an_update_ended() -> None:
    examples = known(PreferenceLoss())
    one = PreferenceBatches(examples, tokens=120, seed=0, accumulate=2)
    for _ in range(4):
        next(one)
    other = PreferenceBatches(examples, tokens=120, seed=0, accumulate=2)
    other.restore(one.state())
    for _ in range(6):
        assert torch.equal(next(one).answers.ids_1T, next(other).answers.ids_1T)
    next(one)
    with pytest.raises(RuntimeError, match="not finished"):
        one.state()


def test_what_updates_reach_is_what_they_learn_from() -> None:
    examples = known(PreferenceLoss(), 24)
    batches = PreferenceBatches(examples, tokens=120, seed=1, accumulate=2)
    reached = batches.reached(2)
    assert 0 < len(reached) < len(examples)
    assert batches.reached(batches.updates(1.0) + 1) == {id(one) for one in examples}
    learned = [next(batches).answers.ids_1T.tolist() for _ in range(4)]
    found = [pack([one]).answers.ids_1T[0].tolist() for one in examples if id(one) in reached]
    flat = [id for row in learned for id in row[0]]
    assert sum(map(len, found)) == len(flat)


def test_pairs_of_a_prompt_are_thumbs_with_the_weights_of_their_pairs() -> None:
    three = Preferred(
        "r", (1,), ((1,), (2,), (3,)), (Choice(0, 1, 0.25), Choice(0, 2, 0.25), Choice(1, 2, 0.5))
    )
    assert unpaired(three).thumbs == (
        Thumb(0, True, 0.5),
        Thumb(1, False, 0.25),
        Thumb(2, False, 0.75),
        Thumb(1, True, 0.5),
    )


def test_a_look_at_held_out_preferences() -> None:
    settings = PreferenceLoss()
    parent, examples = network(scale=1.5), known(settings)
    look = Heldout(examples, settings, parent)
    still = apply_lora(network(scale=1.5), LoraConfig(rank=2))
    found = look(still.eval())
    assert found["heldout_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert found["heldout_accuracy"] == 0.5
    assert found["heldout_kl"] == pytest.approx(0, abs=1e-6)
    moved = look(policy().eval())
    assert moved["heldout_kl"] > 1e-4
    assert moved["heldout_loss"] != pytest.approx(math.log(2), abs=1e-4)


def test_notes_are_weighted_means_over_the_batches_of_an_update() -> None:
    settings, model = PreferenceLoss(), policy()
    examples = known(settings)
    whole, parts = Objective(settings), Objective(settings)
    whole(model, pack(examples))
    for one in examples:
        parts(model, pack([one]))
    a, b = whole.notes(), parts.notes()
    assert a.keys() == b.keys()
    assert "accuracy" in a
    for name in a:
        assert a[name] == pytest.approx(b[name], abs=1e-4)
    assert not whole.notes()
