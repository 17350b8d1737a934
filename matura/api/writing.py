"""The pipelines that write: a prompt, a conversation or a source in, texts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from matura.api import arguments
from matura.api.arguments import TextGeneration, Writing
from matura.api.model import LanguageModel
from matura.core.errors import ConfigError, MaturaError
from matura.core.settings import Sampling

if TYPE_CHECKING:
    from matura.infer.engine import Request

Result = list[dict[str, Any]]
Chat = Sequence[Mapping[str, Any]]

LANGUAGES = {"en": "English", "de": "German", "fr": "French", "ro": "Romanian"}
"""The languages T5 was trained to translate between English and (arXiv:1910.10683, appendix D)."""


def text_generation(model: LanguageModel, inputs: Any, given: Mapping[str, Any]) -> Result | list[Result]:
    """A text or a conversation continued: a list with a dict for each answer; of several inputs, a list of lists."""
    where = "text-generation"
    settings = arguments.parsed(TextGeneration, given, where)
    one = isinstance(inputs, str) or _is_chat(inputs)
    many: list[str | Chat] = [inputs] if one else list(inputs)
    prompts = [_prompt(model, item, settings.prefix) for item in many]
    found = [
        [{"generated_text": _whole(item, text) if settings.return_full_text else text} for text in answers]
        for item, answers in zip(many, written(model, prompts, settings, where), strict=True)
    ]
    return found[0] if one else found


def text_to_text(
    model: LanguageModel, inputs: Any, given: Mapping[str, Any], *, key: str, where: str, prefix: str = ""
) -> Result | list[Result]:
    """What an encoder-decoder answers: for one text a list of dicts; for several, a dict for each text when each has
    one answer, else a list of lists."""
    settings = arguments.parsed(Writing, given, where)
    one = isinstance(inputs, str)
    many = [inputs] if one else list(inputs)
    prompts = [model.tokenizer(prefix + _text(item, where)) for item in many]
    found = [[{key: text} for text in answers] for answers in written(model, prompts, settings, where)]
    if one:
        return found[0]
    return [answers[0] for answers in found] if all(len(answers) == 1 for answers in found) else found


def translation_prefix(model: LanguageModel, source: str, target: str) -> str:
    """What stands before a text to be translated: T5 is told its task in words, others know one."""
    if model.model.config.family != "t5":
        return ""
    if not {source, target} <= LANGUAGES.keys():
        known = ", ".join(sorted(LANGUAGES))
        raise ConfigError(
            f"translation_{source}_to_{target}: T5 knows {known}; or write your own prefix into the text"
        )
    return f"translate {LANGUAGES[source]} to {LANGUAGES[target]}: "


def written(model: LanguageModel, prompts: list[list[int]], given: Writing, where: str) -> list[list[str]]:
    """The answers to each prompt of ids, as texts."""
    from matura.infer import beam
    from matura.infer.text import answers

    settings = arguments.beam_settings(model, given, where)
    if settings is not None:
        beams, found = model.beams(**settings), []
        for ids in prompts:
            asked, new = _fitted(model, ids, given, beams.max_new_tokens, where)
            short = beams.model_copy(update={"max_new_tokens": new})
            best = beam.search(model.model, asked.ids, short, asked.stop_ids, asked.source)
            found.append([model.tokenizer.decode(one.ids, skip_special=True) for one in best])
        return found
    sampling, requests = arguments.sampling_settings(model, given, where), []
    for ids in prompts:
        asked, new = _fitted(model, ids, given, sampling.max_new_tokens, where)
        words = asked.bad_words if given.bad_words_ids is None else given.bad_words_ids
        own = sampling.model_copy(update={"max_new_tokens": new})
        requests.append(replace(asked, sampling=own, bad_words=words))
    texts = [
        model.tokenizer.decode(one.ids, skip_special=True)  # with the stop string, as people know it
        for one in answers(model.model, model.tokenizer, requests, batch=given.batch_size)
    ]
    return [texts[start : start + sampling.n] for start in range(0, len(texts), sampling.n)]


def _fitted(
    model: LanguageModel, ids: list[int], given: Writing, new: int, where: str
) -> tuple[Request, int]:
    """A prompt as the engine takes it, and how many tokens may follow: `new`, unless `max_length` says otherwise."""
    if given.max_length is not None and given.max_new_tokens is not None:
        raise ConfigError(f"{where}: max_length and max_new_tokens both set the length: give one of them")
    if given.truncation:
        ids = _truncated(model, ids, given.max_length, new if given.max_length is None else 1, where)
    request = model.request(ids, Sampling())
    if given.eos_token_id is not None:
        ends = (given.eos_token_id,) if isinstance(given.eos_token_id, int) else given.eos_token_id
        request = replace(request, stop_ids=ends)
    if given.max_length is None:
        return request, new
    before = 1 if request.source else len(ids)  # a decoder with an encoder opens with one token
    if given.max_length <= before:
        raise MaturaError(
            f"{where}: the prompt has {before} tokens and max_length is {given.max_length}, which leaves no room "
            "for an answer; raise it, or set max_new_tokens"
        )
    return request, given.max_length - before


def _truncated(model: LanguageModel, ids: list[int], length: int | None, new: int, where: str) -> list[int]:
    """The beginning of a prompt, so that the answer finds room in the context."""
    from matura.infer.reading import longest

    context, reads = longest(model.model), model.model.encoder is not None
    suffix = list(model.tokenizer.suffix_ids) if reads else []
    room = context if reads else min(context, length or context) - new
    if room < 1 + len(suffix):
        raise MaturaError(f"{where}: {new} new tokens leave no room for a prompt in a context of {context}")
    return ids if len(ids) <= room else [*ids[: room - len(suffix)], *suffix]


def _prompt(model: LanguageModel, item: str | Chat, prefix: str) -> list[int]:
    if isinstance(item, str):
        return list(model.request(prefix + item, Sampling()).ids)
    if not _is_chat(item):
        raise ConfigError(
            f"text-generation: expected a text or a conversation (a list of messages), got {item!r:.200}"
        )
    if prefix:
        raise ConfigError("text-generation: prefix is for texts; a conversation opens with a system message")
    if item[-1].get("role") == "assistant":
        raise ConfigError(
            "text-generation: the conversation ends with an assistant's message, and going on with it is not "
            "supported; end it with the user's"
        )
    return model.format.prompt(item)


def _is_chat(item: Any) -> bool:
    return isinstance(item, list | tuple) and bool(item) and all(isinstance(one, Mapping) for one in item)


def _whole(item: str | Chat, text: str) -> Any:
    if isinstance(item, str):
        return item + text
    return [*item, {"role": "assistant", "content": text}]


def _text(item: Any, where: str) -> str:
    if not isinstance(item, str):
        raise ConfigError(f"{where}: expected a text or a list of texts, got {item!r:.200}")
    return item
