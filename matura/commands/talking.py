"""`matura generate` and `matura chat`: a model's words on the terminal, as they come."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from matura.core.errors import MaturaError

if TYPE_CHECKING:
    from matura.api import LanguageModel

HELP = """/reset  forget the conversation and start again
/help   this list
/exit   leave (or Ctrl-D); Ctrl-C cuts an answer short"""


def generate(reference: str, prompt: str, settings: dict[str, Any], around: str | None = None) -> None:
    """Print the continuation of `prompt` as it is sampled, or the best one that a beam search finds; "-" reads the
    prompt from stdin. `around` names files of a prompt to put it in. Ctrl-C ends the program with code 130."""
    from matura import api

    text = sys.stdin.read() if prompt == "-" else prompt
    if around is not None:
        text = api.load_prompt(around).plain(text)
    try:
        model = api.load(reference)
        _print(
            [model.generate(text, **settings)]
            if model.searches(settings)
            else model.stream(text, **settings),
            [],
        )
    except KeyboardInterrupt:
        print()
        raise SystemExit(130) from None


def chat(reference: str, system: str | None, sampling: dict[str, Any], around: str | None = None) -> None:
    """A conversation of many turns: lines from stdin, answers streamed to stdout. `around` names files of a prompt.
    Raises MaturaError for a model that knows no conversations."""
    from matura import api

    prompt = None if around is None else api.load_prompt(around)
    if system and prompt and prompt.system:
        raise MaturaError(f"{around} has a system message already; leave --system out, or take it from there")

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (line editing and history for input())

    settings = sampling if prompt is None else {**sampling, "prompt": prompt}
    model = api.load(reference)
    if model.model.config.head.kind != "language":
        raise MaturaError(f"{reference} writes no text, so it cannot talk; {_advice(model)}")
    if model.format.template is None:
        raise MaturaError(f"{reference} has no chat template, so it knows no conversations; {_advice(model)}")
    opening = [{"role": "system", "content": system}] if system else []
    messages = list(opening)
    if sys.stdin.isatty():
        print(f"{reference}. /help lists the commands, Ctrl-D leaves.")
    for line in _lines():
        match line:
            case "":
                continue
            case "/exit" | "/quit":
                return
            case "/help":
                print(HELP)
            case "/reset":
                messages = list(opening)
                print("The conversation starts again.")
            case _ if line.startswith("/") and " " not in line and line[1:].isalpha():
                print(f"Unknown command {line}.\n{HELP}")
            case _:
                asked, said = [*messages, {"role": "user", "content": line}], list[str]()
                try:
                    _print(model.chat_stream(asked, **settings), said)
                except KeyboardInterrupt:
                    print(" [cut]", flush=True)
                except MaturaError as error:  # the context is full, say: the conversation is not lost
                    print(f"{error} (/reset starts again)")
                    continue
                messages = [*asked, {"role": "assistant", "content": "".join(said)}]


def _advice(model: "LanguageModel") -> str:
    """What a model that does not talk is for."""
    config = model.model.config
    if config.head.kind == "classifier" and len(config.head.labels) == 1:
        return "it judges answers: `matura rank` with rewards.judge.model"
    if config.head.kind == "classifier":
        return "it gives labels: `matura classify`"
    if config.head.kind != "language":
        return "it gives vectors: `matura embed`"
    if config.decoder is None:
        return "it reads: `matura fill` or `matura embed`"
    return "give it plain text: `matura generate`"


def _lines() -> Iterator[str]:
    """Lines a person types, until Ctrl-D; Ctrl-C only gives up the line."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            yield input(prompt).strip()
        except KeyboardInterrupt:
            print("\n(Ctrl-D leaves)")
        except EOFError:
            if prompt:
                print()
            return


def _print(pieces: Iterable[str], said: list[str]) -> None:
    """Print pieces as they come and add them to `said`, which keeps them when Ctrl-C cuts the text short."""
    for piece in pieces:
        said.append(piece)
        print(piece, end="", flush=True)
    print(flush=True)
