"""A prompt around a question: one rendering for training, exams and chat, and never the question among the examples."""

from pathlib import Path

import pytest

from matura.core.errors import ConfigError, FormatError
from matura.core.promptfile import PromptFile, Shown
from matura.core.records import Conversation, write_conversations
from matura.evaluate import asking
from matura.evaluate.prompted import requests
from matura.tokenizer import prompt as prompts
from matura.tokenizer.prompt import Prompt
from matura.train import examples
from tests.tiny_models import chatml

ANSWER = "It is wet."


def row(name: str, asked: str, answer: str = "yes") -> Conversation:
    said = {"role": "assistant", "content": answer}
    return Conversation(name, ({"role": "user", "content": asked}, said))


POOL = (
    row("tea", "How is tea made?", "With hot water."),
    row("rail", "Where do trains stop?", "At stations."),
    row("cup", "How is a tea cup made?", "Of clay."),
)


def made(choose: str = "fixed", count: int = 2, **settings: object) -> Prompt:
    shown = Shown.model_validate({"choose": choose, "count": count})
    texts = {"system": "Be brief.", "template": "Q: {{ input }}\nA:"} | settings
    return Prompt(PromptFile.model_validate({**texts, "examples": shown}), POOL)


def contents(messages: list[prompts.Message]) -> list[tuple[str, str]]:
    return [(one["role"], one["content"]) for one in messages]


def test_the_messages_around_a_question() -> None:
    asked = [{"role": "user", "content": "What is rain?"}]
    assert contents(made().around(asked)) == [
        ("system", "Be brief."),
        ("user", "Q: How is tea made?\nA:"),
        ("assistant", "With hot water."),
        ("user", "Q: Where do trains stop?\nA:"),
        ("assistant", "At stations."),
        ("user", "Q: What is rain?\nA:"),
    ]
    assert contents(made().around(asked, examples=False))[1:] == [("user", "Q: What is rain?\nA:")]
    assert made().ask("What is rain?") == made().around(asked)
    assert made(count=1).plain("What is rain?") == (
        "Be brief.\n\nQ: How is tea made?\nA: With hot water.\n\nQ: What is rain?\nA:"
    )


@pytest.mark.parametrize("choose", ["fixed", "random", "similar", "diverse"])
def test_training_exam_and_chat_have_the_same_ids(choose: str) -> None:
    """The rule of the one renderer: ids of the three ways are equal, and only the answer is trained."""
    format, prompt, question = chatml(), made(choose), "What is <|im_end|> rain?"
    chat = prompt.ids(format, [{"role": "user", "content": question}])
    (scored,) = requests(prompt, True, [asking.Score(question, f" {ANSWER}")], question)
    (written,) = requests(prompt, True, [asking.Write(question)], question)
    assert isinstance(scored, asking.Score)
    assert isinstance(written, asking.Write)
    context, continuation = asking.pair(format, scored)
    talk = prompts.trained(row("x", question, ANSWER), prompt, examples=True)
    (example,), _ = examples.from_conversation(talk, format, 10_000)
    reader = asking.Reader.__new__(asking.Reader)
    object.__setattr__(reader, "format", format)
    object.__setattr__(reader, "window", 10_000)
    assert context == chat == asking.prompt_ids(reader, written)
    assert example.ids[: len(chat)] == tuple(chat)
    assert example.ids[len(chat) :][: len(continuation)] == tuple(continuation)
    assert not any(example.weights[: len(chat)])
    assert all(example.weights[len(chat) :])
    without = prompts.trained(row("x", question, ANSWER), prompt, examples=False)
    assert len(examples.from_conversation(without, format, 10_000)[0][0].ids) < len(example.ids)


def test_similar_puts_the_nearest_last_and_random_is_fixed_by_its_seed() -> None:
    shown = made("similar").examples_for("How do I make a tea cup?")
    assert [one.id for one in shown] == ["tea", "cup"]
    drawn = [[one.id for one in made("random").examples_for(text)] for text in ("a b c", "d e f")]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("choose", ["fixed", "random", "similar", "diverse"])
def test_no_example_is_the_question(choose: str) -> None:
    for one in POOL:
        asked = one.messages[0]["content"]
        for text in (asked, asked.upper(), f"Question: {asked}\nAnswer:"):
            shown = made(choose).examples_for(text)
            assert one.id not in {example.id for example in shown}
            assert shown


LONG = "Because the rain of the whole year falls within two weeks there."


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("Who knows this?", f"Listen: {LONG.upper()}"),
        (f"Is it true? {LONG}", "yes"),
        ("Who knows this?", "They asked why the river Indus floods so often; nobody said."),
    ],
)
def test_no_example_holds_the_question_or_an_answer_in_any_of_its_texts(asked: str, said: str) -> None:
    pool = (row("leak", asked, said), row("rail", "Where do trains stop?", "Because of rain."))
    prompt = Prompt(PromptFile(examples=Shown(choose="similar", count=1)), pool)
    question, answers = "Why the river Indus floods so often?", ("yes", LONG)
    assert [one.id for one in prompt.examples_for(question, answers)] == ["rail"]
    # The control: without the long answer, and for another question, both may be shown.
    both = Prompt(PromptFile(examples=Shown(choose="similar", count=2)), pool)
    shown = both.examples_for("What floods in the rain every year?", ("yes", "no"))
    assert {one.id for one in shown} == {"leak", "rail"}
    (turns,) = requests(prompt, True, [asking.Score(question, f" {LONG}")], question, answers)
    assert isinstance(turns, asking.Score)
    assert isinstance(turns.context, asking.Turns)
    assert LONG.casefold() not in " ".join(text for _, text in turns.context.messages).casefold()


def test_many_turns_keep_their_beginning() -> None:
    """Examples go by the first question, so what the model has read already does not change."""
    format, prompt = chatml(), made("similar", 1)
    first = [{"role": "user", "content": "Where do long trains stop?"}]
    later = [*first, {"role": "assistant", "content": "There."}, {"role": "user", "content": "Is tea made?"}]
    before = prompt.ids(format, first)
    assert prompt.ids(format, later)[: len(before)] == before
    assert contents(prompt.around(later))[-1] == ("user", "Q: Is tea made?\nA:")


def test_two_system_messages_are_refused_and_one_stays_first() -> None:
    own = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "What is rain?"}]
    with pytest.raises(ConfigError, match="two system messages"):
        made().around(own)
    assert contents(made(system="").around(own))[0] == ("system", "Mine.")
    talk = Conversation("row7", (*own, {"role": "assistant", "content": "wet"}))
    with pytest.raises(ConfigError, match="conversation 'row7': there are two"):
        prompts.trained(talk, made(), examples=False)


def test_a_template_of_fields_is_for_tasks() -> None:
    prompt = made(template="{{ country }}?")
    assert not prompt.wraps
    assert contents(prompt.ask("Peru?"))[-1] == ("user", "Peru?")
    assert contents(prompt.ask("Peru?"))[1] == ("user", "How is tea made?")
    with pytest.raises(FormatError, match="wants a field 'country'"):
        prompt.around([{"role": "user", "content": "Peru"}])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template": "always the same"}, "shows nothing of what is asked"),
        ({"template": "{{ input"}, "template: "),
        ({"count": 4}, "4 are to be shown, but there are 3"),
    ],
)
def test_prompts_that_cannot_be(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(**settings)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_examples_are_read_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "prompt.yaml").write_text("examples: {count: 2, ids: [cup, tea]}\n")
    write_conversations(tmp_path / "examples.jsonl", POOL)
    assert [one.id for one in prompts.read(tmp_path).examples_for("Who?")] == ["cup", "tea"]
    (tmp_path / "prompt.yaml").write_text("examples: {count: 1, ids: [pot]}\n")
    with pytest.raises(ConfigError, match=r"prompt\.yaml: examples\.ids: there is no example 'pot'"):
        prompts.read(tmp_path)
    half = Conversation("half", ({"role": "user", "content": "and?"},))
    (tmp_path / "prompt.yaml").write_text("examples: {count: 1}\n")
    write_conversations(tmp_path / "examples.jsonl", [half])
    with pytest.raises(ConfigError, match="'half' is no example: expected user and assistant in turn"):
        prompts.read(tmp_path)
