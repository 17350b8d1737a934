"""The reward of an answer: at its last real token, whatever stands beside it (T5), with the prompt read once."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from matura.align.preferred import answered
from matura.align.ranked import pack_texts, read, rewards, two_texts
from matura.align.reward_model import Judge, set_reward_head
from matura.align.sequences import Prompted
from matura.core import artifact
from matura.core.errors import ConfigError, MaturaError
from matura.core.preferences import Answer, Ranking
from matura.model import config as c
from matura.model import store
from matura.tokenizer.conversation import Format
from tests.model.tiny import build, gpt_stack, llama_config
from tests.tiny_encoder import word_pieces
from tests.tiny_models import chatml, network


def asked(number: int, text: str) -> Ranking:
    return Ranking(f"r{number}", ({"role": "user", "content": text},))


def judge() -> Judge:
    return Judge(set_reward_head(network(), seed=3), chatml())


PROMPTS = [asked(n, "say it " * n) for n in (1, 9, 3)]
ANSWERS = [["yes", "no, never at all", ""], ["<|im_end|>"], ["a", "b b b b b b", "c", "d d"]]


def test_the_stop_token_is_read_and_the_prompt_is_shared() -> None:
    format = chatml()
    stop = format.tokenizer.id("<|im_end|>")
    text = read(answered, format, PROMPTS[0], ["yes", Answer("no", end="length")])
    assert list(text.prompt) == format.prompt(PROMPTS[0].messages)
    assert [one[-1] == stop for one in text.answers] == [True, False]
    said = [*PROMPTS[0].messages, {"role": "assistant", "content": "yes"}]
    whole = format.render(said)
    assert [*text.prompt, *text.answers[0]] == whole.ids[: whole.answers[-1].end]
    marked = read(answered, format, PROMPTS[0], ["<|im_end|>"])
    assert marked.answers[0].count(stop) == 1  # what looks like the stop token in an answer is only text


def alone(judge: Judge, prompt: Ranking, answer: str, pad: int, side: str) -> float:
    """One answer at a time in a padded batch, the pad id being the stop token."""
    text = read(answered, judge.format, prompt, [answer])
    ids = [*text.prompt, *text.answers[0]]
    filler = [judge.format.tokenizer.id("<|im_end|>")] * pad
    row = [*filler, *ids] if side == "left" else [*ids, *filler]
    real = [False] * pad + [True] * len(ids) if side == "left" else [True] * len(ids) + [False] * pad
    mask_BT = torch.tensor([real])
    assert judge.model.head is not None
    with torch.inference_mode():
        hidden_BTD = judge.model.decode(torch.tensor([row]), mask=mask_BT)
        return judge.model.head(hidden_BTD, mask_BT).item()


def test_a_reward_depends_on_no_padding_and_no_neighbour() -> None:
    own = judge()
    together = own.scores(PROMPTS, ANSWERS)
    assert len({round(one, 4) for row in together for one in row}) == 8  # rewards that tell answers apart
    for row in (1, 60, 100_000):
        again = own.scores(PROMPTS, ANSWERS, row=row)
        assert [len(one) for one in again] == [3, 1, 4]
        for got, want in zip(again, together, strict=True):
            assert got == pytest.approx(want, abs=1e-5)
    for prompt, answers, scores in zip(PROMPTS, ANSWERS, together, strict=True):
        for answer, score in zip(answers, scores, strict=True):
            for side in ("left", "right"):
                for pad in (0, 1, 17):
                    assert alone(own, prompt, answer, pad, side) == pytest.approx(score, abs=1e-5)


def test_answers_do_not_see_each_other() -> None:
    own = judge()
    (first,) = own.scores(PROMPTS[:1], [["yes", "no"]])
    (second,) = own.scores(PROMPTS[:1], [["yes", "completely different words"]])
    assert first[0] == pytest.approx(second[0], abs=1e-6)
    assert abs(first[1] - second[1]) > 1e-3
    order = list(range(4))
    random.Random(0).shuffle(order)
    (shuffled,) = own.scores(PROMPTS[2:], [[ANSWERS[2][i] for i in order]])
    (kept,) = own.scores(PROMPTS[2:], [ANSWERS[2]])
    assert shuffled == pytest.approx([kept[i] for i in order], abs=1e-5)


def test_an_encoder_reads_two_texts_as_one() -> None:
    tokenizer = word_pieces()
    vocabulary = tokenizer.vocab_size
    config = c.ModelConfig(
        vocabulary=vocabulary, context=64, encoder=gpt_stack(causal=False), head=c.NoHead()
    )
    model = set_reward_head(build(config, dtype=torch.float32), seed=1)
    own = Judge(model, Format(tokenizer, None, []))
    text = read(two_texts, own.format, asked(0, "the cat"), ["the dog", "the"])
    assert text.prompt == ()
    begin, end = tokenizer.id("[CLS]"), tokenizer.id("[SEP]")
    assert [(one[0], one[-1], one.count(end)) for one in text.answers] == [(begin, end, 2)] * 2
    together = own.scores([asked(0, "the cat"), asked(1, "a house")], [["the dog", "the"], ["red", "mat"]])
    single = [own.scores([asked(0, "the cat")], [[one]])[0][0] for one in ("the dog", "the")]
    assert together[0] == pytest.approx(single, abs=1e-5)
    assert own.model.head is not None
    with torch.inference_mode():
        ids_BT = torch.tensor([[*text.answers[0], 0, 0]])
        real_BT = torch.tensor([[True] * len(text.answers[0]) + [False] * 2])
        padded = own.model.head(own.model.encode(ids_BT, mask=real_BT), real_BT).item()
    assert padded == pytest.approx(together[0][0], abs=1e-5)


def test_gradients_through_the_shared_prompt_are_those_of_each_answer_alone() -> None:
    model = set_reward_head(build(llama_config()), seed=1)
    text = prompted((5, 6, 7), [(8, 9), (10,), (11, 12, 13)])
    sums = []
    for texts in ([text], [prompted(text.prompt, [one]) for one in text.answers]):
        model.zero_grad()
        rewards(model, *pack_texts(texts)).square().sum().backward()
        sums.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert sums[0].keys() == sums[1].keys()
    for name, one in sums[0].items():
        torch.testing.assert_close(one, sums[1][name], rtol=0, atol=1e-10)


def prompted(prompt: tuple[int, ...], answers: Sequence[tuple[int, ...]]) -> Prompted:
    return Prompted(tuple(prompt), tuple(answers))


def test_a_judge_is_loaded_from_its_artifact(tmp_path: Path) -> None:
    own = judge()
    draft = artifact.begin(tmp_path / "model", kind="model", stage="reward", version=1, config={}, inputs={})
    store.save(draft.path, own.model)
    own.format.save(draft.path)
    draft.commit({})
    again = Judge.load(tmp_path / "model").scores(PROMPTS, ANSWERS)
    for got, want in zip(again, own.scores(PROMPTS, ANSWERS), strict=True):
        assert got == pytest.approx(want, abs=1e-5)


def test_a_model_that_is_no_reward_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "load_for_inference", lambda path, device: network())
    chatml().save(tmp_path)
    with pytest.raises(MaturaError, match=rf"^{tmp_path}: this is no reward model"):
        Judge.load(tmp_path)


def test_what_is_no_reward_model_is_refused() -> None:
    with pytest.raises(MaturaError, match=r"no reward model.*Train one with `matura reward`"):
        Judge(network(), chatml())
    with pytest.raises(
        MaturaError, match=r"prompt 'r7' with its longest answer has \d+ tokens.*context is 256"
    ):
        judge().scores([asked(7, "word " * 100)], [["no"]])
    both = llama_config().model_copy(update={"encoder": gpt_stack(causal=False)})
    with pytest.raises(ConfigError, match="a decoder or an encoder"):
        set_reward_head(build(both))
    assert judge().scores([PROMPTS[0]], [[]]) == [[]]


def test_a_reward_model_writes_nothing_and_says_so() -> None:
    model = judge().model
    with pytest.raises(
        MaturaError, match=r"this model writes nothing.*the model that it was trained from writes"
    ):
        model.logits(model.decode(torch.tensor([[1, 2]])))
