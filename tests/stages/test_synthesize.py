"""Replay: what a model writes of itself, the same every time, and never twice."""

import json
from pathlib import Path
from typing import Any

import pytest

from matura.core import costs
from matura.core.artifact import Artifact
from matura.core.errors import MaturaError
from matura.core.records import Conversation, read_conversations
from matura.infer import engine
from matura.stages import synthesize
from matura.tokenizer import conversation
from tests.tiny_models import pulled, run

SHORT = {"max_new_tokens": 12}
QUICK: dict[str, Any] = {
    "conversations": 7,
    "texts": 5,
    "heldout": 2,
    "question": SHORT,
    "answer": SHORT,
    "text": SHORT,
    "min_characters": 1,
    "batch": 3,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return pulled(tmp_path_factory.mktemp("model"))


def rows(made: Artifact) -> list[Conversation]:
    parts = ("train.jsonl", "heldout.jsonl")
    return [row for part in parts for row in read_conversations(made.file(part))]


def test_questions_with_answers_and_plain_texts_are_kept_apart_from_what_is_held_out(
    model: Artifact, tmp_path: Path
) -> None:
    made = run(synthesize, tmp_path / "made", model=model, **QUICK)
    kept = rows(made)
    assert made.summary["written"] == 12
    assert made.summary["kept"] == len(kept) > 8
    assert len({row.id for row in kept}) == len(kept)
    heldout = list(read_conversations(made.file("heldout.jsonl")))
    assert [bool(row.messages) for row in heldout] == [True, True]
    assert json.loads(made.file("report.json").read_text())["train"] == len(kept) - 2
    for row in kept:
        if row.messages:
            assert [message["role"] for message in row.messages] == ["user", "assistant"]
            assert all(message["content"] for message in row.messages)
        else:
            assert row.text.strip()


def test_it_says_what_it_samples_from(
    model: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prompts, stops = [], set()
    generate = engine.generate

    def listening(model: Any, given: Any, each: Any, stop: Any, **settings: Any) -> Any:
        prompts.extend(given)
        stops.add(frozenset(stop))
        return generate(model, given, each, stop, **settings)

    monkeypatch.setattr(engine, "generate", listening)
    run(synthesize, tmp_path / "made", model=model, **QUICK | {"batch": 99})
    format = conversation.load(model.path)
    assert prompts[:7] == [format.opening("user")] * 7
    assert all(format.tokenizer.decode(ids).endswith("<|im_start|>assistant\n") for ids in prompts[7:14])
    assert prompts[14:] == [[format.begin_id]] * 5
    assert stops == {frozenset({format.tokenizer.id("<|im_end|>"), format.tokenizer.id("<|endoftext|>")})}


def test_the_seed_decides_and_the_batch_does_not(model: Artifact, tmp_path: Path) -> None:
    made = run(synthesize, tmp_path / "a", model=model, **QUICK)
    assert run(synthesize, tmp_path / "b", model=model, **QUICK).id == made.id
    assert rows(run(synthesize, tmp_path / "c", model=model, **QUICK | {"batch": 16})) == rows(made)
    other = rows(run(synthesize, tmp_path / "d", model=model, **QUICK | {"seed": 1}))
    assert {row.id for row in other} & {row.id for row in rows(made)}
    assert not {row.text or str(row.messages) for row in other} & {
        row.text or str(row.messages) for row in rows(made)
    }


@pytest.mark.parametrize("finished", range(8))
def test_killed_anywhere_it_goes_on_and_writes_the_same(
    model: Artifact, finished: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the eight calls to the model, two for each of three groups of conversations and two of texts."""
    generate, calls = engine.generate, []

    def dying(*args: Any, **settings: Any) -> Any:
        if len(calls) == finished:
            raise KeyboardInterrupt
        calls.append(1)
        return generate(*args, **settings)

    monkeypatch.setattr(engine, "generate", dying)
    with pytest.raises(KeyboardInterrupt):
        run(synthesize, tmp_path / "killed", model=model, **QUICK)
    monkeypatch.setattr(engine, "generate", lambda *a, **k: calls.append(1) or generate(*a, **k))
    made = run(synthesize, tmp_path / "killed", model=model, **QUICK)
    assert len(calls) == 8 + (finished % 2 if finished < 6 else 0)  # a half-written group is written again
    assert made.id == run(synthesize, tmp_path / "whole", model=model, **QUICK).id


def test_a_model_without_chat_writes_texts_only(tmp_path: Path) -> None:
    plain = pulled(tmp_path, **{"tokenizer.chat_template": "{{ messages[0].content }}"})
    settings = json.loads((plain.path / "conversation.json").read_text())
    (plain.path / "conversation.json").write_text(json.dumps({**settings, "template": None}))
    with pytest.raises(
        MaturaError, match="no chat template, so it cannot write conversations: set conversations=0"
    ):
        run(synthesize, tmp_path / "chat", model=plain, **QUICK)
    made = run(synthesize, tmp_path / "texts", model=plain, **QUICK | {"conversations": 0})
    assert made.summary["written"] == 5
    assert all(row.text for row in rows(made))


def test_too_little_that_can_be_used_is_told(model: Artifact, tmp_path: Path) -> None:
    with pytest.raises(MaturaError, match="only 0 usable rows came out of 12, and 2 are to be held out"):
        run(synthesize, tmp_path / "a", model=model, **QUICK | {"min_characters": 1000})
    with pytest.raises(MaturaError, match="hold out fewer"):
        run(synthesize, tmp_path / "b", model=model, **QUICK | {"heldout": 7})


def test_what_was_written_twice_is_kept_once() -> None:
    pair = [
        Conversation(str(n), ({"role": "user", "content": "q"}, {"role": "assistant", "content": answer}))
        for n, answer in enumerate(["a", "b", "a"])
    ]
    kept = synthesize._unique([*pair, Conversation("t", (), "q\na"), Conversation("u", (), "v")])
    assert [row.id for row in kept] == ["0", "1", "u"]


def test_the_estimate_counts_what_will_be_written(model: Artifact) -> None:
    config = synthesize.Config(model="m", **QUICK)
    estimate = synthesize.estimate(config, {"model": model})
    assert "186 tokens" in estimate.note
    assert estimate.seconds == pytest.approx(costs.LIGHTEST * 186 / synthesize.TOKENS_PER_SECOND)
