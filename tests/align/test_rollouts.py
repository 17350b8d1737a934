import math

import pytest
import torch

from matura.align import rollouts
from matura.align.rewards import Completion
from matura.core.config import parse
from matura.core.errors import ConfigError, MaturaError
from matura.core.peft_settings import LoraConfig, Tuning
from matura.core.rollout_settings import Rollouts
from matura.core.settings import Draw
from matura.model.peft import tuning
from tests import tiny_models
from tests.align.completions import asked

DRAW = Draw(max_new_tokens=6)
PROMPTS = [asked("a", "say one"), asked("b", "say something that is longer"), asked("c", "x")]


@pytest.fixture(scope="module")
def model():
    return tiny_models.network(scale=2.0)


@pytest.fixture(scope="module")
def format():
    return tiny_models.chatml()


def rolled(model, format, prompts=PROMPTS, **more):
    return rollouts.roll(model, format, prompts, **{"k": 3, "draw": DRAW, "seed": 5} | more)


def test_answers_stand_side_by_side_in_the_order_of_the_prompts(model, format):
    found = rolled(model, format)
    assert [(one.prompt.id, one.sample) for one in found] == [(p.id, k) for p in PROMPTS for k in range(3)]
    for one in found:
        assert list(one.prompt_ids) == format.prompt(one.prompt.messages)
        assert len(one.ids) == len(one.logprobs)
        assert (one.ids[-1] in format.stop_ids) == (one.end == "stop")
        said = one.ids[:-1] if one.end == "stop" else one.ids
        assert one.text == format.tokenizer.decode(said, skip_special=True)


def test_an_answer_depends_on_its_seed_iteration_prompt_and_sample_alone(model, format):
    whole = rolled(model, format)
    again = [one for p in reversed(PROMPTS) for one in rolled(model, format, [p], batch=2)]
    assert {(o.prompt.id, o.sample): o.ids for o in whole} == {(o.prompt.id, o.sample): o.ids for o in again}
    for other in ({"seed": 6}, {"iteration": 1}):
        assert [o.ids for o in rolled(model, format, **other)] != [o.ids for o in whole]
    twice = rolled(model, format, [PROMPTS[0], PROMPTS[0]])
    assert [o.ids for o in twice[:3]] == [o.ids for o in whole[:3]]
    assert [o.ids for o in twice[3:]] != [o.ids for o in whole[:3]]


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_t12_behaviour_logprobs_are_those_of_the_loss(model, format, temperature):
    found = rolled(model, format, draw=Draw(max_new_tokens=6, temperature=temperature))
    assert rollouts.check(model, found, temperature) < 1e-4
    one = found[4]
    with torch.no_grad():
        logits_TV = model.logits(model.decode(torch.tensor([[*one.prompt_ids, *one.ids]])))[0] / temperature
    last = len(one.prompt_ids) - 1
    plain = [float(logits_TV[last + i].log_softmax(-1)[id]) for i, id in enumerate(one.ids)]
    assert one.logprobs == pytest.approx(plain, abs=1e-4)


@pytest.mark.parametrize("cut", [{"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.3}, {"repetition_penalty": 1.5}])
def test_t12_cuts_are_found_out_and_cannot_be_set(model, format, cut):
    found = rolled(model, format, draw=Draw(max_new_tokens=6, **cut))
    with pytest.raises(MaturaError, match="not drawn from this model at temperature"):
        rollouts.check(model, found, 1.0)
    with pytest.raises(ConfigError, match="only the temperature can be set"):
        parse(Rollouts, cut, "rollouts")


def test_t28_other_weights_or_another_temperature_are_found_out(model, format):
    found = rolled(model, format)
    with pytest.raises(MaturaError, match="differ by"):
        rollouts.check(tiny_models.network(scale=2.1), found, 1.0)
    with pytest.raises(MaturaError, match="differ by"):
        rollouts.check(model, found, 1.1)


def test_t29_no_dropout_while_rolling_and_the_mode_is_as_it_was(format):
    settings = Tuning(lora=LoraConfig(dropout=0.5))
    model = tuning.apply(tiny_models.network(scale=2.0), settings)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(1))
    model.train()
    found = rolled(model, format)
    assert model.training
    assert rollouts.check(model, found, 1.0) < 1e-4
    assert [one.ids for one in rolled(model.eval(), format)] == [one.ids for one in found]


def test_a_model_that_knows_no_end_is_refused(model, format):
    endless = tiny_models.Format(format.tokenizer, format.template, ())
    with pytest.raises(MaturaError, match="no stop token"):
        rolled(model, endless)


def test_prompts_that_leave_no_room_are_left_out_and_counted(model, format):
    long = asked("long", "x" * 250)
    kept, dropped = rollouts.fitting([*PROMPTS, long], format, model, 16)
    assert (kept, dropped) == (PROMPTS, 1)
    with pytest.raises(MaturaError, match="none of 1 prompts leaves room"):
        rollouts.fitting([long], format, model, 16)


def test_rows_keep_groups_whole_and_state_keeps_bits(model, format):
    found = rolled(model, format)
    assert [[len(group) for group in row] for row in rollouts.rows(found, 10**6)] == [[3, 3, 3]]
    assert [[len(group) for group in row] for row in rollouts.rows(found, 1)] == [[3], [3], [3]]
    one = found[0]
    assert rollouts.Rollout.restored(one.state(), one.prompt, one.prompt_ids) == one
    assert rollouts.completion(one) == Completion(one.prompt, one.text, one.end, len(one.ids))


def test_probabilities_of_what_is_drawn_sum_to_one(model, format):
    """The drawn probability is of the whole vocabulary: over many samples, 1/p averages to the number of tokens."""
    found = rollouts.roll(model, format, PROMPTS[:1], k=400, draw=Draw(max_new_tokens=1), seed=1)
    seen = {one.ids[0]: math.exp(one.logprobs[0]) for one in found}
    share = {id: sum(one.ids[0] == id for one in found) / 400 for id in seen}
    assert sum(seen.values()) <= 1 + 1e-6
    best = max(seen, key=lambda id: seen[id])
    assert share[best] == pytest.approx(seen[best], abs=4 * math.sqrt(seen[best] / 400))
