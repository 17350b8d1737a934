"""A prompt: system text, examples and a template, put around what is asked. The one place where that is done.

Chat, exams and fine-tuning take their messages from here and their ids from `conversation.Format`, so what is trained
is what is examined and what is served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from matura.core import promptfile
from matura.core.artifact import Artifact
from matura.core.errors import ConfigError, FormatError, MaturaError
from matura.core.promptfile import PromptFile
from matura.core.raw import RawInput
from matura.core.records import Conversation, read_conversations
from matura.tokenizer import shots, wording
from matura.tokenizer.conversation import Format, Message
from matura.tokenizer.wording import Text

MAX_EXAMPLES = 20_000  # of a pool that is searched for every question


@dataclass(frozen=True)
class Prompt:
    """Settings with the examples that may be shown. `id` is that of its artifact, or the hash of its files."""

    settings: PromptFile
    pool: tuple[Conversation, ...] = ()
    id: str = ""

    def __post_init__(self) -> None:
        wording.check(Text(self.settings.template), "template")
        if not self.fields:
            raise ConfigError(
                f"template: {self.settings.template!r:.80} shows nothing of what is asked; write {promptfile.INPUT} "
                "where it belongs"
            )
        for row in self.pool:
            if (problem := unfit(row)) is not None:
                raise ConfigError(f"examples: {row.id!r} {problem}")
        if len(self._order) < self.settings.examples.count:
            raise ConfigError(
                f"examples.count: {self.settings.examples.count} are to be shown, but there are {len(self.pool)}"
            )

    @property
    def version(self) -> str:
        """The beginning of `id`, as people are shown it."""
        return self.id[:12]

    @property
    def system(self) -> str:
        """The system message, "" for none."""
        return self.settings.system

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """What the template shows: `input`, or fields of a task's rows."""
        return wording.fields(self.settings.template)

    @property
    def wraps(self) -> bool:
        """Whether the template is around what is asked; otherwise it is made of the fields of a task's rows."""
        return "input" in self.fields

    @cached_property
    def fixed(self) -> tuple[Conversation, ...]:
        """The examples that stand before every question; none where each question has its own."""
        if self.settings.examples.choose == "similar":
            return ()
        return tuple(self.pool[i] for i in self._order[: self.settings.examples.count])

    @cached_property
    def _order(self) -> Sequence[int]:
        """Numbers of the pool in the order in which examples are taken."""
        chosen, ids = self.settings.examples, [row.id for row in self.pool]
        match chosen.choose:
            case "random":
                return shots.drawn(ids, chosen.seed)
            case "diverse":
                return shots.diverse([asked(row.messages) for row in self.pool], chosen.count + 1)
            case "fixed" if chosen.ids:
                if missing := [id for id in chosen.ids if id not in ids]:
                    raise ConfigError(f"examples.ids: there is no example {missing[0]!r}")
                return [ids.index(id) for id in chosen.ids]
        return range(len(ids))

    @cached_property
    def _index(self) -> shots.Index:
        return shots.Index([asked(row.messages) for row in self.pool])

    def examples_for(self, question: str, answers: Sequence[str] = ()) -> list[Conversation]:
        """What is shown before a question; the one most like it stands last.

        Never the question itself, nor an example of which any text holds the question or one of its `answers` (in an
        exam the choices or right texts).
        """
        count = self.settings.examples.count
        if not count:
            return []
        similar = self.settings.examples.choose == "similar"
        order = shots.nearest(self._index, question) if similar else self._order
        taken: list[Conversation] = []
        for i in order:
            if len(taken) == count:
                break
            if not _gives_away(self.pool[i], question, answers):
                taken.append(self.pool[i])
        return taken[::-1] if similar else taken

    def around(self, messages: Sequence[Message], *, examples: bool = True) -> list[Message]:
        """A conversation as the model gets it: system text, examples, then the turns, every user's in the template.

        Examples are chosen by its first question, and have a weight of 0: they are never trained. Raises ConfigError
        when the conversation has a system message and the prompt has one too.
        """
        turns = list(messages)
        own = []
        if turns and turns[0].get("role") == "system":
            if self.system:
                raise ConfigError(
                    "there are two system messages, one of the prompt and one of the conversation; leave one out"
                )
            own = [dict(turns.pop(0))]
        before = self._before(asked(turns)) if examples else self._opening()
        return [*own, *before, *map(self._templated, turns)]

    def ask(self, text: str, question: str | None = None, answers: Sequence[str] = ()) -> list[Message]:
        """The messages that ask one thing. `question` is what examples are chosen by, where the text holds more, and
        `answers` are what none of them may hold.

        The text of a task that a template of fields has written already is taken as it is.
        """
        content = self._text(text) if self.wraps else text
        before = self._before(text if question is None else question, answers)
        return [*before, {"role": "user", "content": content}]

    def _opening(self) -> list[Message]:
        return [{"role": "system", "content": self.system}] if self.system else []

    def _before(self, question: str, answers: Sequence[str] = ()) -> list[Message]:
        """System text and examples."""
        shown = [one for row in self.examples_for(question, answers) for one in row.messages]
        return [*self._opening(), *(self._shown(one) for one in shown if one["role"] != "system")]

    def _shown(self, message: Message) -> Message:
        """A message of an example. A template of a task's fields does not suit it, for it is a question already."""
        if message["role"] == "assistant":
            return {"role": "assistant", "content": message["content"], "weight": 0}
        return self._templated(message) if self.wraps else {"role": "user", "content": message["content"]}

    def _templated(self, message: Message) -> Message:
        if message.get("role") != "user" or not isinstance(message.get("content"), str):
            return dict(message)
        return {**message, "content": self._text(message["content"])}

    def _text(self, given: str) -> str:
        return Text(self.settings.template).of({"input": given})

    def plain(self, text: str, question: str | None = None, answers: Sequence[str] = ()) -> str:
        """The same as plain text, for models without a chat template and for what only goes on."""
        pieces, pending = [], ""
        for one in self.ask(text, question, answers):
            if one["role"] == "system":
                pieces.append(one["content"])
            elif one["role"] == "user":
                pending = one["content"]
            else:
                pieces.append(pending + self.settings.delimiter + one["content"])
        return self.settings.separator.join([*pieces, pending])

    def ids(self, format: Format, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation with this prompt, ready for the answer."""
        return format.prompt(bare(self.around(messages)))

    def told(self) -> dict[str, Any]:
        """What a report says of it."""
        chosen = self.settings.examples
        return {
            "id": self.id,
            "about": self.settings.about,
            "system": self.system,
            "template": self.settings.template,
            "examples": chosen.count,
            "choose": chosen.choose if chosen.count else "none",
        }


def asked(messages: Sequence[Mapping[str, Any]]) -> str:
    """The first question of a conversation."""
    return next((str(one.get("content")) for one in messages if one.get("role") == "user"), "")


def _gives_away(row: Conversation, question: str, answers: Sequence[str]) -> bool:
    """Whether an example asks the same, or quotes the question or one of the answers."""
    if shots.same(asked(row.messages), question):
        return True
    texts = [str(one["content"]) for one in row.messages if one["role"] != "system"]
    return any(
        shots.quotes(text, question, shots.LEAST)
        or any(shots.quotes(text, one, shots.RUN) for one in answers)
        for text in texts
    )


def bare(messages: Sequence[Message]) -> list[Message]:
    """Messages without what only training reads."""
    return [{name: value for name, value in one.items() if name != "weight"} for one in messages]


def unfit(row: Conversation) -> str | None:
    """Why a conversation can be no example; None when it can."""
    roles = [one["role"] for one in row.messages if one["role"] != "system"]
    if row.tools or any(one.get("tool_calls") for one in row.messages) or "tool" in roles:
        return "calls tools, which an example cannot show"
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        return "is no example: expected user and assistant in turn, the assistant last"
    return None


def read(source: Artifact | RawInput | str | Path, id: str = "") -> Prompt:
    """The prompt of an artifact, of a prompt.yaml, or of a folder with one. Raises ConfigError or FormatError that
    names the file."""
    path = source.path if isinstance(source, Artifact | RawInput) else source
    file = promptfile.place(path)
    settings = promptfile.read(file)
    pool: tuple[Conversation, ...] = ()
    if settings.examples.count:
        beside = file.with_name(settings.examples.file)
        if not beside.is_file():
            raise ConfigError(f"{file}: examples.file: there is no {beside}")
        pool = tuple(islice(read_conversations(beside), MAX_EXAMPLES + 1))
        if len(pool) > MAX_EXAMPLES:
            raise ConfigError(f"{beside}: more than {MAX_EXAMPLES:,} examples; leave some out of the file")
    try:
        return Prompt(settings, pool, source.id if isinstance(source, Artifact | RawInput) else id)
    except (ConfigError, FormatError) as error:
        raise type(error)(f"{file}: {error}") from error


def trained(row: Conversation, prompt: Prompt, *, examples: bool) -> Conversation:
    """A conversation to learn, with the prompt around it; plain texts stay as they are. Raises MaturaError naming
    the row."""
    if not row.messages:
        return row
    try:
        messages = prompt.around(row.messages, examples=examples)
    except MaturaError as error:
        raise type(error)(f"conversation {row.id!r}: {error}") from error
    return Conversation(row.id, tuple(map(dict, messages)), "", row.provenance, row.tools)
