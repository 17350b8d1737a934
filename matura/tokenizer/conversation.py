"""Conversations to token ids: the one renderer that training, exams and chat share.

The model's own Jinja template says how a conversation is written. Two rules make the ids trustworthy:

- *Boundaries are real.* The ids of a conversation are put together turn by turn: what `prompt` gives before an answer
  is, id for id, what training sees before that answer. A template that writes earlier turns differently once later
  ones exist breaks this and is refused with the row shown.
- *Content is text.* A message that contains `<|im_end|>` keeps those ten characters; only the template writes markup.

For training a third is added: *nothing is left out.* A template that passes over a role, a tool call or the tools is
refused, for the model would learn from less than the row says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from matura.core.errors import FormatError, MaturaError
from matura.core.files import read_json, write_json
from matura.tokenizer import tokenizer as tokenizers
from matura.tokenizer.omissions import check_written
from matura.tokenizer.template import Template
from matura.tokenizer.tokenizer import Tokenizer, TokenizerFiles

FILE = "conversation.json"
Message = Mapping[str, Any]


class Answer(NamedTuple):
    """Which message it is, and where its tokens are: ids[start:end], the last of them its stop token."""

    message: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids, and for each whether it is an assistant's own (trained) token: the answers with their stop token."""

    ids: list[int]
    mask: list[bool]
    answers: tuple[Answer, ...] = ()


class Format:
    """A tokenizer with its chat template and stop tokens: how this model writes conversations.

    `stop_ids` end an answer in every template this model knows; `generation` holds the file's sampling defaults.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: str | None,
        stop_ids: Sequence[int],
        generation: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.stop_ids = tuple(stop_ids)
        if unknown := [id for id in self.stop_ids if tokenizer.token(id) is None]:
            raise FormatError(
                f"the stop tokens {unknown} are outside the vocabulary of {tokenizer.vocab_size} tokens"
            )
        self.generation = dict(generation or {})
        self._compiled = None if template is None else Template(template)
        names = (tokenizer.token(id) for id in tokenizer.special_ids)
        self._special = tuple(sorted((name for name in names if name), key=lambda name: (-len(name), name)))

    def prompt(self, messages: Sequence[Message], tools: Sequence[Message] = ()) -> list[int]:
        """Ids of the conversation so far, ready for the assistant's next answer; `tools` are what it may call."""
        return self._turns(messages, tools, generation_prompt=True).ids

    def text(self, messages: Sequence[Message], *, generation_prompt: bool) -> str:
        """What the template writes, markup and content alike: for programs that encode texts themselves. Nothing here
        keeps a content that looks like markup from being taken for it; `prompt` does."""
        if self._compiled is None:
            raise MaturaError("this model has no chat template; use it for plain text (`matura generate`)")
        return self._text(messages, generation_prompt=generation_prompt)

    def render(self, messages: Sequence[Message], tools: Sequence[Message] = ()) -> Rendered:
        """Ids of a whole conversation with the mask of what an assistant said.

        Raises MaturaError, with the conversation shown, when the template does not extend the prompt by the answer,
        when an answer does not end in a stop token (a model trained on it would never stop), or when the template
        leaves out a role, a tool call or the tools.
        """
        rendered = self._turns(messages, tools, generation_prompt=False)
        check_written(partial(self._text, generation_prompt=False), messages, tools)
        return rendered

    @property
    def begin_id(self) -> int | None:
        """The token before a plain text, as in pre-training: the document separator `<|endoftext|>` where the
        vocabulary has one, else the begin token, else the end token; None without any."""
        separator = self.tokenizer.backend.token_to_id("<|endoftext|>")
        known = (separator, self.tokenizer.bos_id, self.tokenizer.eos_id)
        return next((id for id in known if id is not None), None)

    def opening(self, role: str) -> list[int]:
        """Ids of a new conversation up to where a `role` message's own text begins: what a model that is to write
        that message itself continues."""
        if self._compiled is None:
            raise MaturaError("this model has no chat template, so it has no turns to open")
        marker = "\ue000content\ue001"
        text = self._text([{"role": role, "content": marker}], generation_prompt=False)
        if marker not in text:
            raise MaturaError(f"the chat template does not write the content of a {role!r} message")
        return self.tokenizer.encode_markup(text[: text.index(marker)])

    def _turns(
        self, messages: Sequence[Message], tools: Sequence[Message], *, generation_prompt: bool
    ) -> Rendered:
        if self._compiled is None:
            raise MaturaError("this model has no chat template; use it for plain text (`matura generate`)")
        _check_messages(messages)
        guard = _Guard(messages, tools, self._special)
        ids: list[int] = []
        mask: list[bool] = []
        answers: list[Answer] = []
        done = ""  # template text that `ids` already covers

        def extend(end: int, *, prompt: bool) -> list[int]:
            nonlocal done
            text = self._text(guard.messages[:end], guard.tools, generation_prompt=prompt)
            if not text.startswith(done):
                raise MaturaError(_broken_prefix(messages, done, text, guard))
            new = self._encode(text[len(done) :], guard)
            ids.extend(new)
            mask.extend([False] * len(new))
            done = text
            return new

        for i, message in enumerate(messages):
            if message["role"] == "assistant":
                extend(i, prompt=True)
                start = len(ids)
                length = self._answer_length(messages, extend(i + 1, prompt=False))
                mask[start : start + length] = [True] * length
                answers.append(Answer(i, start, start + length))
        if generation_prompt or messages[-1]["role"] != "assistant":  # else it is covered already
            extend(len(messages), prompt=generation_prompt)
        return Rendered(ids, mask, tuple(answers))

    def _answer_length(self, messages: Sequence[Message], ids: list[int]) -> int:
        """Tokens up to and including the last stop token; what the template writes after it is never generated."""
        last = max((i for i, id in enumerate(ids) if id in self.stop_ids), default=None)
        if last is None:
            raise MaturaError(
                "the chat template ends an answer without a stop token, so a model trained on it would never stop. "
                f"Stop tokens: {[self.tokenizer.token(id) for id in self.stop_ids]}. Conversation: {_shown(messages)}"
            )
        return last + 1

    def _text(
        self, messages: Sequence[Message], tools: Sequence[Message] = (), *, generation_prompt: bool
    ) -> str:
        assert self._compiled is not None
        roles = self.tokenizer.roles
        try:
            return self._compiled.render(
                {
                    "messages": messages,
                    "add_generation_prompt": generation_prompt,
                    "bos_token": roles.bos or "",
                    "eos_token": roles.eos or "",
                    "pad_token": roles.pad or "",
                    "unk_token": roles.unk or "",
                    "tools": list(tools) or None,
                }
            )
        except Exception as error:  # a template is a program of its own and can fail in any way
            raise MaturaError(
                f"the chat template cannot write this conversation: {error}. {_shown(messages)}"
            ) from error

    def _encode(self, text: str, guard: _Guard) -> list[int]:
        """Only what stands between two special tokens and holds a stand-in is encoded apart, as plain text: the
        ids of everything else must not depend on what other messages hold."""
        if not guard.escapes:
            return self.tokenizer.encode_markup(text)
        ids: list[int] = []
        markup = ""
        for piece in re.split(f"({'|'.join(map(re.escape, self._special))})", text):
            plain = guard.restore(piece)
            if plain == piece:
                markup += piece
                continue
            ids += [*self.tokenizer.encode_markup(markup), *self.tokenizer.encode(plain)]
            markup = ""
        return ids + self.tokenizer.encode_markup(markup)

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, conversation.json and generation.json; `load` needs nothing else."""
        self.tokenizer.save(folder)
        settings = {
            "template": self.template,
            "stop_tokens": [self.tokenizer.token(id) for id in self.stop_ids],
            "tokenizer_settings": self.tokenizer.settings(),
        }
        write_json(Path(folder) / FILE, settings)
        write_json(Path(folder) / "generation.json", self.generation)


def from_files(files: TokenizerFiles) -> Format:
    """The format that a checkpoint of another project describes."""
    return Format(files.tokenizer, files.chat_template, files.stop_ids, files.generation)


def load(folder: str | Path) -> Format:
    """The format of a model artifact. Raises FormatError naming the file that is missing or broken."""
    folder = Path(folder)
    try:
        stored = read_json(folder / FILE, limit=64 << 20, what="a conversation format")
        generation = read_json(folder / "generation.json", limit=1 << 20, what="generation defaults")
    except OSError as error:
        raise FormatError(f"{error.filename}: cannot be read: {error.strerror or error}") from error
    template, stop = stored.get("template"), stored.get("stop_tokens", [])
    settings = stored.get("tokenizer_settings") or {}
    if not (
        (template is None or isinstance(template, str))
        and isinstance(settings, dict)
        and isinstance(stop, list)
        and all(isinstance(token, str) for token in stop)
    ):
        raise FormatError(
            f"{folder / FILE}: expected a text `template`, a list of texts `stop_tokens` and an object "
            "`tokenizer_settings`"
        )
    tokenizer = tokenizers.load(folder, settings)
    return Format(tokenizer, template, [tokenizer.id(token) for token in stop], generation)


class _Guard:
    """Messages whose special-looking text is replaced by stand-ins that no template knows, and the way back.

    A beginning of a special token at the very end of a content counts too: the template's next characters could
    complete it.
    """

    def __init__(self, messages: Sequence[Message], tools: Sequence[Message], special: Sequence[str]) -> None:
        everything = [dict(one) for one in (*messages, *tools)]
        written = json.dumps(everything, ensure_ascii=False, default=str)
        nonce = 0
        while f"\ue000{nonce:x}." in written:
            nonce += 1
        self.escapes: dict[str, str] = {}
        self._nonce, self._special = nonce, special
        self._names = re.compile(f"\ue000{nonce:x}\\.[0-9]+\ue001")
        self._pattern = re.compile("|".join(map(re.escape, special))) if special else None
        self.messages = [
            {name: value if name == "role" else self._escape(value) for name, value in message.items()}
            for message in messages
        ]
        self.tools = [self._escape(tool) for tool in tools]

    def _escape(self, content: Any) -> Any:
        """`content` with stand-ins; lists and objects (tool calls) all the way down."""
        if isinstance(content, Mapping):
            return {self._escape(name): self._escape(value) for name, value in content.items()}
        if isinstance(content, list | tuple):
            return [self._escape(value) for value in content]
        if self._pattern is None or not isinstance(content, str):
            return content
        content = self._pattern.sub(lambda match: self._stand_in(match[0]), content)
        opening = max((_overlap(content, token) for token in self._special), default=0)
        return content[: len(content) - opening] + self._stand_in(content[-opening:]) if opening else content

    def _stand_in(self, text: str) -> str:
        name = f"\ue000{self._nonce:x}.{len(self.escapes)}\ue001"
        self.escapes[name] = text
        return name

    def restore(self, text: str) -> str:
        """The text with what the stand-ins stand for, in one pass: there may be as many as the text is long."""
        return self._names.sub(lambda match: self.escapes.get(match[0], match[0]), text)


def _overlap(content: str, token: str) -> int:
    """Length of the longest proper beginning of `token` that `content` ends with."""
    return next(
        (n for n in range(min(len(token) - 1, len(content)), 0, -1) if content.endswith(token[:n])), 0
    )


def _check_messages(messages: Sequence[Message]) -> None:
    if not messages:
        raise MaturaError("a conversation needs at least one message")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not all(
            isinstance(message.get(name), str) for name in ("role", "content")
        ):
            raise MaturaError(f"message {i}: expected text in `role` and `content`, got {message!r:.200}")
        if not re.fullmatch(r"[\w-]{1,64}", message["role"]):  # templates write it into their markup
            raise MaturaError(
                f"message {i}: a role is one word, such as user or assistant, not {message['role']!r:.200}"
            )


def _broken_prefix(messages: Sequence[Message], done: str, text: str, guard: _Guard) -> str:
    same = next(
        (i for i, (a, b) in enumerate(zip(done, text, strict=False)) if a != b), min(len(done), len(text))
    )
    return (
        "the chat template rewrites earlier turns, so what is trained would differ from what is served: after "
        f"{guard.restore(done[max(0, same - 40) : same])!r} it first wrote {guard.restore(done[same : same + 40])!r} "
        f"and then {guard.restore(text[same : same + 40])!r}. Conversation: {_shown(messages)}"
    )


def _shown(messages: Sequence[Message]) -> str:
    text = json.dumps([dict(message) for message in messages], ensure_ascii=False, default=str)
    return text if len(text) <= 400 else f"{text[:400]}..."
