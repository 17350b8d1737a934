"""One life, from documents to files for other programs: everything that renders a conversation gives the same ids, the
stop token is learned and obeyed everywhere, the exported model answers the same, and exams ask nothing that was
learned.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import matura
from benchmarks import gguf
from matura.align import preferred, ranked, rollouts
from matura.core import lineage
from matura.core.artifact import Artifact
from matura.core.preferences import Answer, Ranking, read_rankings
from matura.core.raw import raw_input
from matura.core.records import Conversation, read_conversations, read_documents
from matura.core.settings import Draw
from matura.evaluate.asking import Turns
from matura.model import store
from matura.stages import export, finetune
from matura.tokenizer import conversation
from matura.tokenizer.conversation import Format
from matura.train import examples
from tests.small_life import ASKED_IN_EVERY_DOCUMENT, SERVICES, Life
from tests.tiny_models import conversations, run

TALK = (
    {"role": "user", "content": "garden: create a boat"},
    {"role": "assistant", "content": "aws garden create-boat \\\n    --name 'Grüße 🌍'"},
    {"role": "user", "content": "  and\n\n12 more? "},
    {"role": "assistant", "content": "aws garden create-boat"},
)
MODELS = ("untrained", "base", "taught", "judge", "aligned")
EXACT = 5e-3
"""Nats by which llama.cpp may differ in float32 (see benchmarks/gguf.py)."""
NEW = 64
pytestmark = pytest.mark.usefixtures("captions")  # the stages' own tests draw the pictures of their reports


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    return Life(tmp_path_factory.mktemp("life"))


@pytest.fixture(scope="module")
def format(life: Life) -> Format:
    return conversation.load(life["aligned"].path)


@pytest.fixture(scope="module")
def lesson(life: Life) -> Conversation:
    return next(read_conversations(life["lessons"].file("train.jsonl")))


@pytest.fixture(scope="module")
def by_heart(life: Life, lesson: Conversation) -> Artifact:
    """A model that learned one lesson and nothing else."""
    return run(
        finetune,
        life.place / "by_heart",
        model=life["base"],
        conversations=conversations(life.place / "lesson", [lesson], [lesson]),
        method="full",
        optimizer={"kind": "muon", "lr": 0.02, "weight_decay": 0.0},
        tokens=8000,
        tokens_per_step=128,
        sequence=128,
        meter_every=0,
        save_every=1000,
    )


@pytest.fixture(scope="module")
def folder(life: Life) -> Path:
    return life["assistant"].path / "hf"


def talks(lesson: Conversation) -> Iterator[tuple[dict[str, Any], ...]]:
    """Conversations of one turn and of two."""
    yield lesson.messages
    yield TALK


def judge(file: Path, messages: Any, prompts: list[list[int]]) -> dict[str, Any]:
    """What llama.cpp makes of a GGUF file."""
    return gguf.judge(file, 1, context=128, texts=[], messages=messages, prompts=prompts, new=NEW)


# The same ids


def test_training_learns_exactly_the_answers_with_their_stop_token(
    format: Format, lesson: Conversation
) -> None:
    for talk in talks(lesson):
        (example,), _ = examples.from_conversation(Conversation("talk", talk), format, 128)
        end = len(example.ids)
        for i in (i for i in reversed(range(len(talk))) if talk[i]["role"] == "assistant"):
            answer = (*format.tokenizer.encode(talk[i]["content"]), format.stop_ids[0])
            start = len(format.prompt(talk[:i]))
            stop = start + len(answer)
            assert example.ids[:start] == tuple(format.prompt(talk[:i]))
            assert example.ids[start:stop] == answer
            assert example.weights[start:stop] == (1.0,) * len(answer)
            assert not any(example.weights[stop:end])
            end = start
        assert not any(example.weights[:end])


def test_every_stage_writes_a_conversation_as_training_does(
    life: Life, format: Format, lesson: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    chatted: list[list[int]] = []
    aligned = matura.load(life["aligned"].path, workspace=life.workspace)
    judge_model = store.load(life["judge"].path)

    def listened(model: Any, tokenizer: Any, ids: list[int], *others: Any) -> Iterator[str]:
        chatted.append(list(ids))
        yield ""

    monkeypatch.setattr("matura.infer.text.stream_text", listened)
    for talk in talks(lesson):
        (example,), _ = examples.from_conversation(Conversation("talk", talk), format, 128)
        asked, answer = talk[:-1], Answer(talk[-1]["content"])
        trained = tuple(format.prompt(asked))
        assert example.ids[: len(trained)] == trained
        for stage in MODELS:
            assert tuple(conversation.load(life[stage].path).prompt(asked)) == trained, stage
        assert tuple(Turns(tuple((one["role"], one["content"]) for one in asked)).ids(format)) == trained
        aligned.chat(asked)
        assert tuple(chatted.pop()) == trained
        prompt = Ranking("talk", asked)
        (rolled,) = rollouts.roll(
            aligned.model, format, [prompt], k=1, draw=Draw(max_new_tokens=1), seed=0, batch=1
        )
        assert rolled.prompt_ids == trained
        for read in (
            preferred.answered(format, prompt, answer),
            ranked.read(ranked.write_for(judge_model), format, prompt, [answer]),
        ):
            assert (read.prompt, read.prompt + read.answers[0]) == (trained, example.ids)


def test_transformers_writes_a_conversation_as_training_does(
    format: Format, folder: Path, lesson: Conversation
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for talk in talks(lesson):
        (example,), _ = examples.from_conversation(Conversation("talk", talk), format, 128)
        whole = tokenizer.apply_chat_template(list(talk), return_dict=False)
        assert tuple(whole[: len(example.ids)]) == example.ids
        asked = tokenizer.apply_chat_template(list(talk[:-1]), add_generation_prompt=True, return_dict=False)
        assert asked == format.prompt(talk[:-1])
    stops = transformers.GenerationConfig.from_pretrained(folder).eos_token_id
    assert set(format.stop_ids) <= {*(stops if isinstance(stops, list) else [stops])}


# Generation stops


def test_generation_stops_where_the_lesson_did(
    life: Life, by_heart: Artifact, format: Format, lesson: Conversation
) -> None:
    asked, answer = lesson.messages[:-1], lesson.messages[-1]["content"]
    prompt, right = format.prompt(asked), format.tokenizer.encode(answer)
    ours, before = (
        matura.load(one.path, workspace=life.workspace).answers([prompt], temperature=0, max_new_tokens=NEW)[
            0
        ]
        for one in (by_heart, life["base"])
    )
    assert (ours.finish, ours.text) == ("stop", answer)
    assert before.finish == "length"  # reading alone teaches no stop token

    folder = run(export, life.place / "by_heart_hf", model=by_heart).path / "hf"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([prompt])
    made = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, temperature=None
    )
    assert made[0, len(prompt) :].tolist() == [*right, format.stop_ids[0]]

    pytest.importorskip("xllamacpp")
    file = run(export, life.place / "by_heart_gguf", model=by_heart, format="gguf", weights="F32").path
    (found,) = judge(file / "model.gguf", None, [prompt])["answers"]
    assert [id for id in found["ids"] if id not in format.stop_ids] == right
    assert len(found["ids"]) < NEW


# The exported model


def test_transformers_computes_what_we_do(life: Life, format: Format, folder: Path) -> None:
    ours = store.load(life["aligned"].path).eval()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([format.render(TALK).ids])
    with torch.no_grad():
        mine, its = ours.logits(ours.decode(ids)), theirs(input_ids=ids).logits
    torch.testing.assert_close(mine, its, rtol=0, atol=1e-4)
    base = store.load(life["base"].path).eval()
    with torch.no_grad():
        assert (base.logits(base.decode(ids)) - its).abs().max() > 1e-3  # another model is another


def test_llama_cpp_reads_and_answers_as_we_do(life: Life, format: Format) -> None:
    pytest.importorskip("xllamacpp")
    asked = list(TALK[:-1])
    prompt = format.prompt(asked)
    found = judge(life["gguf"].path / "model.gguf", asked, [prompt])
    assert (found["chat"], found["template"]) == (prompt, format.template)
    (answer,) = found["answers"]
    model = store.load(life["aligned"].path).eval()
    ids = torch.tensor([[*prompt, *answer["ids"]]])
    with torch.no_grad():
        logprobs_TV = model.logits(model.decode(ids[:, :-1]))[0, len(prompt) - 1 :].log_softmax(-1)
    own_T = logprobs_TV.gather(1, ids[0, len(prompt) :, None])[:, 0]
    assert (logprobs_TV.amax(-1) - own_T).max() < EXACT  # its choices are ours, but at ties
    if answer["logprobs"]:  # none when a token is half a character
        torch.testing.assert_close(own_T, torch.tensor(answer["logprobs"]), rtol=0, atol=EXACT)


# What is asked, and where it all came from


def test_exams_ask_nothing_that_was_learned(life: Life) -> None:
    learned = {
        stage: list(read_conversations(life[stage].file("train.jsonl"))) for stage in ("lessons", "questions")
    }
    held = list(read_conversations(life["questions"].file("heldout.jsonl")))
    exams = [
        list(read_rankings(life[f"judged_{who}"].file("heldout.jsonl"))) for who in ("taught", "aligned")
    ]
    asked = {row.messages[0]["content"] for rows in exams for row in rows}
    assert asked
    assert asked <= {row.messages[0]["content"] for row in held}
    preferences = {row.messages[0]["content"] for row in read_rankings(life["preferred"].file("train.jsonl"))}
    questions = {stage: {row.messages[0]["content"] for row in rows} for stage, rows in learned.items()}
    assert preferences
    assert preferences <= questions["questions"]
    assert not asked & (questions["lessons"] | preferences)

    documents = {
        stage: {row.provenance["document"] for row in rows}
        for stage, rows in (*learned.items(), ("held", held))
    }
    read = {one.id: one for one in read_documents(life["corpus"].file("train.parquet"))}
    kept = {one.id for one in read_documents(life["corpus"].file("heldout.parquet"))}
    assert documents["held"] <= kept
    assert documents["lessons"] | documents["questions"] <= read.keys()
    assert not documents["lessons"] & documents["questions"]
    assert not kept & read.keys()
    # The control: without the rule some of these questions would have been learned from other documents.
    shared = {f"{service}: {ASKED_IN_EVERY_DOCUMENT}" for service in SERVICES}
    in_common = shared & {row.messages[0]["content"] for row in held}
    assert any(one.source.startswith(name.partition(":")[0]) for name in in_common for one in read.values())


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for one in node["inputs"].values():
        yield from _nodes(one)


@pytest.mark.parametrize("stage", ["assistant", "gguf"])
def test_the_lineage_of_an_export_names_every_stage_and_the_raw_files(life: Life, stage: str) -> None:
    needs = {step.name: set(step.uses.values()) for step in life.recipe.steps}
    before = {stage}
    while more := {need for name in before for need in needs[name]} - before:
        before |= more
    assert {"corpus", "tokenizer", "tokens", "base", "lessons", "taught", "preferred", "aligned"} <= before
    found = list(_nodes(lineage.tree(life[stage])))
    made = {one["id"] for one in found if one["kind"] != "raw"}
    assert made == {life[name].id for name in before}
    assert {one["state"] for one in found} <= {"here", "above"}
    raw = {one["path"]: one["id"] for one in found if one["kind"] == "raw"}
    documents = raw_input(life.documents)
    assert raw[str(life.documents.resolve())] == documents.id
    assert len(documents.files) == len(list(life.documents.rglob("*.rst")))


def test_a_second_run_makes_nothing(life: Life) -> None:
    before = {name: one.id for name, one in life.made.items()}
    assert {name: one.id for name, one in life.run().items()} == before
    assert set(life.status.values()) <= {"reused"}
    assert life.status.keys() == before.keys()
