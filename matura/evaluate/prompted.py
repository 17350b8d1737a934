"""A prompt in an exam: what a task asks, asked with system text, examples and a template around it.

A model with a chat template is asked in a conversation, any other in plain text. A prompt that holds a question of the
exam is refused, and so is one that leaves no room for a question: nothing is cut away unseen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from matura.core.artifact import Artifact
from matura.core.errors import ConfigError
from matura.core.exam_settings import Asked
from matura.core.raw import RawInput
from matura.evaluate.asking import Answers, Request, Score, Turns, Write, pair
from matura.tokenizer import shots
from matura.tokenizer.prompt import Prompt, bare, read

if TYPE_CHECKING:
    from matura.evaluate.sitting import Candidate, Section
    from matura.tokenizer.conversation import Format

SETTINGS = {"parent": "parent_prompt", "child": "prompt"}
COMMON = 3
"""A run of words that more questions have than this belongs to the task's template and gives none of them away."""
SHOWN = 3
ANY_LENGTH = 1 << 30
ONE_SIDE = (
    "Only one of the two was asked with a prompt. In a chat nobody asks for the space before a right answer, so bits "
    "of right answers are compared over the bytes without it; the figures of each alone are over what it was asked."
)


def given(inputs: Mapping[str, Artifact | RawInput], sides: Iterable[str]) -> dict[str, Prompt | None]:
    """The prompt of each side ("child", "parent"), read from the inputs of the exam."""
    found = {who: inputs.get(name) for who, name in SETTINGS.items() if who in sides}
    return {who: None if one is None else read(one) for who, one in found.items()}


def requests(
    prompt: Prompt, chat: bool, asked: Sequence[Request], question: str, answers: Sequence[str] = ()
) -> list[Request]:
    """The requests of one item with the prompt around them. `question` is what examples are chosen by, and none of
    them holds one of the `answers`."""

    def around(text: str) -> str | Turns:
        if not chat:
            return prompt.plain(text, question, answers)
        messages = bare(prompt.ask(text, question, answers))
        return Turns(tuple((one["role"], one["content"]) for one in messages))

    made: list[Request] = []
    for one in asked:
        match one:
            case Score(str(context), continuation):
                made.append(Score(around(context), continuation))
            case Write(str(text)):
                made.append(replace(one, prompt=around(text)))
            case _:
                made.append(one)
    return made


def template(prompt: Prompt | None, one: Asked) -> Asked:
    """How a task is asked with this prompt: a template of fields stands in for the task's own."""
    if prompt is None or prompt.wraps:
        return one
    if one.prompt is not None:
        raise ConfigError(
            f"tasks: {one.label} has a `prompt` of its own, and the template of the prompt is made of fields of rows "
            f"({', '.join(prompt.fields)}) too; leave one out"
        )
    return one.model_copy(update={"prompt": prompt.settings.template})


def check(section: Section, who: str, candidate: Candidate, window: int) -> None:
    """Raises ConfigError when the prompt gives answers away or leaves a question no room."""
    if section.prompt is None or not section.items:
        return
    leaks = leaked(section.prompt, {item.id: item.question for item in section.items})
    if leaks:
        listed = ", ".join(leaks[:SHOWN]) + (", ..." if len(leaks) > SHOWN else "")
        raise ConfigError(
            f"the prompt of the {_name(who)} holds {len(leaks)} of the questions of {section.name} ({listed}), so its "
            "figures would say nothing. Take other examples, or leave these questions out of the text"
        )
    for item, asked in zip(section.items, section.requests(), strict=True):
        longest = max(_tokens(candidate.format, one) for one in asked)
        if longest > window:
            raise ConfigError(
                f"the prompt of the {_name(who)} and question {item.id} have {longest:,} tokens with the answer, more "
                f"than window={window}; show fewer or shorter examples, or set a larger window"
            )


def _name(who: str) -> str:
    return "model" if who == "child" else who


def _tokens(format: Format, request: Request) -> int:
    """Tokens that have to fit the window, answer included."""
    from matura.train.examples import from_conversation

    match request:
        case Score():
            context, new = pair(format, request)
            return len(context) + len(new) - 1
        case Write(Turns() as turns, _, most):
            return len(turns.ids(format)) + most
        case Write(text, _, most):
            return len(format.tokenizer.encode(str(text))) + most
        case Answers(row, turns):  # up to the first token of the first answer; the rest may be cut
            made, _ = from_conversation(row, format, ANY_LENGTH, turns=turns)
            return min((one.mask.index(True) + 1 for one in made), default=0)
    return 0


def leaked(prompt: Prompt, questions: Mapping[str, str]) -> list[str]:
    """Ids of the questions that the system text, the template or an example shown with every question holds.

    Examples that are chosen for each question are not looked at: `Prompt.examples_for` leaves out what gives it away.
    """
    examples = [one for row in prompt.fixed for one in row.messages if one["role"] != "system"]
    said = [one["content"] for one in examples if one["role"] == "user"]
    texts = [prompt.system, prompt.settings.template, *(one["content"] for one in examples)]
    runs = {id: shots.runs(question) for id, question in questions.items()}
    counted = Counter(run for found in runs.values() for run in found)
    return [
        id
        for id, question in questions.items()
        if any(shots.same(one, question) for one in said)
        or any(shots.holds(text, {run for run in runs[id] if counted[run] <= COMMON}) for text in texts)
    ]


def notes(prompts: Mapping[str, Prompt | None]) -> list[str]:
    """Which prompt each side had, in words; none where no side had one."""
    if not any(prompts.values()):
        return []
    told = [_note(_name(who), one) for who, one in prompts.items()]
    return told if all(prompts.values()) else [*told, ONE_SIDE]


def _note(who: str, prompt: Prompt | None) -> str:
    if prompt is None:
        return f"The {who} was asked without a prompt."
    told = prompt.told()
    system = f"system text {told['system']!r:.120}" if told["system"] else "no system text"
    examples = f"{told['examples']} examples ({told['choose']})" if told["examples"] else "no examples"
    return (
        f"The {who} was asked with the prompt {prompt.version}: {system}, "
        f"template {told['template']!r:.120}, {examples}."
    )


def told(prompts: Mapping[str, Prompt | None]) -> dict[str, Any]:
    """The same for programs."""
    return {who: None if one is None else one.told() for who, one in prompts.items()}
