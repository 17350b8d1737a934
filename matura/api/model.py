"""A model ready to use: its weights, tokenizer and conversation format, and what one does with them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from matura.api import checks
from matura.core import config
from matura.core.artifact import Artifact
from matura.core.errors import ConfigError, MaturaError
from matura.core.settings import Beams, Sampling, generation_defaults

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from matura.evaluate.likelihood import Likelihood
    from matura.infer.embed import Named
    from matura.infer.engine import Request
    from matura.infer.fill import Fill
    from matura.infer.text import Answer
    from matura.model.peft.adapter import Adapter
    from matura.model.transformer import Transformer
    from matura.tokenizer.conversation import Format, Message
    from matura.tokenizer.prompt import Prompt
    from matura.tokenizer.tokenizer import Tokenizer

Ids = Sequence[int]
Scores = list[tuple[str, float]]
"""(label, probability), likeliest first."""


class LanguageModel:
    """A model with its tokenizer and conversation format.

    What writes takes sampling settings as keyword arguments (`matura.core.settings.Sampling`) on top of the model's own
    generation defaults; unknown ones are refused by name. `adapter` names one of the `adapters` that were loaded with
    the model, for this call alone; none is the model itself. A prompt is a text or the ids of one. With an encoder (T5)
    the prompt is what the encoder reads, and the default is the likeliest token each time.
    """

    def __init__(
        self,
        made: Artifact,
        device: str | int = "cpu",
        adapters: Mapping[str, Artifact | Path] | None = None,
    ) -> None:
        from matura.model import store
        from matura.model.allocator import keep_freed_memory
        from matura.tokenizer import conversation

        keep_freed_memory()
        self.artifact = made
        self.device = device_name(device)
        self.format: Format = conversation.load(made.path)
        self.model: Transformer = store.load_for_inference(made.path, device=self.device)
        self.adapters: dict[str, Adapter] = {
            name: _adapter(self.model, made, name, one, self.device) for name, one in (adapters or {}).items()
        }

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back."""
        return self.format.tokenizer

    @overload
    def generate(self, prompt: str, **settings: Any) -> str: ...
    @overload
    def generate(self, prompt: Ids, **settings: Any) -> list[int]: ...
    def generate(self, prompt: str | Ids, *, adapter: str | None = None, **settings: Any) -> str | list[int]:
        """What follows a prompt: a text after a text, new ids after ids (without the prompt and the stop token).

        With `beams=N`, or where the model's own defaults say so and nothing is set that only sampling knows, it is the
        best answer of a beam search (`matura.core.settings.Beams`).
        """
        if settings.get("n", 1) != 1:
            raise ConfigError("n: generate gives one answer; several come from `answers` or `beam_search`")
        if self.searches(settings):
            ids = self.beam_search(prompt, adapter=adapter, **settings)[0].ids
        elif isinstance(prompt, str):
            return "".join(self.stream(prompt, adapter=adapter, **settings))
        else:
            ids = self.answers([prompt], adapters=[adapter], **settings)[0].ids
        return self.tokenizer.decode(ids, skip_special=True) if isinstance(prompt, str) else list(ids)

    def stream(self, prompt: str | Ids, *, adapter: str | None = None, **sampling: Any) -> Iterator[str]:
        """The text that follows a prompt, piece by piece. The prompt begins as the tokenizer says a text begins; an
        empty one begins as documents do."""
        from matura.infer.text import stream_text

        asked = self.request(prompt, self.sampling(**sampling), adapter)
        return stream_text(
            self.model,
            self.tokenizer,
            asked.ids,
            asked.sampling,
            asked.stop_ids,
            asked.source,
            asked.adapter,
        )

    def answers(
        self,
        prompts: Sequence[str | Ids],
        *,
        batch: int = 16,
        adapters: Sequence[str | None] | None = None,
        **sampling: Any,
    ) -> list[Answer]:
        """Answers to many prompts, `batch` at a time, each with text, ids, reason to end and, with `logprobs`,
        log-probabilities. With `n` above 1 the answers to one prompt stand side by side. `adapters` has one name (or
        None) for each prompt; prompts with different ones are answered in one batch."""
        from matura.infer import text

        checks.whole(batch, "batch")
        many = checks.several(prompts, "prompts", "a list of prompts (`generate` takes a single one)")
        settings = self.sampling(**sampling)
        each = [None] * len(many) if adapters is None else list(adapters)
        if len(each) != len(many):
            raise ConfigError(
                f"adapters: {len(each)} names for {len(many)} prompts; give one, or None, for each"
            )
        requests = [
            self.request(prompt, settings, adapter) for prompt, adapter in zip(many, each, strict=True)
        ]
        return text.answers(self.model, self.tokenizer, requests, batch=batch)

    def beam_search(self, prompt: str | Ids, *, adapter: str | None = None, **settings: Any) -> list[Answer]:
        """The best `n` answers of a beam search, best first."""
        from matura.infer import beam
        from matura.infer.text import Answer

        asked = self.request(prompt, Sampling(), adapter)
        beams = self.beams(**settings)
        found = beam.search(self.model, asked.ids, beams, asked.stop_ids, asked.source, asked.adapter)
        return [
            Answer(self.tokenizer.decode(one.ids, skip_special=True), one.ids, one.finish) for one in found
        ]

    def searches(self, settings: Mapping[str, Any]) -> bool:
        """Whether these settings mean a beam search: they name `beams`, or the model's own defaults do."""
        own = self.format.generation.get("beams", 1) > 1 and settings.keys() <= Beams.model_fields.keys()
        return "beams" in settings or own

    def chat(
        self, messages: Sequence[Message], *, prompt: str | Path | Prompt | None = None, **sampling: Any
    ) -> str:
        """The assistant's answer to a conversation, with a prompt around it where one is given (`load_prompt`)."""
        return "".join(self.chat_stream(messages, prompt=prompt, **sampling))

    def chat_stream(
        self, messages: Sequence[Message], *, prompt: str | Path | Prompt | None = None, **sampling: Any
    ) -> Iterator[str]:
        """The assistant's answer, piece by piece."""
        from matura.api.prompting import load_prompt

        talk = checks.messages(messages)
        ids = self.format.prompt(talk) if prompt is None else load_prompt(prompt).ids(self.format, talk)
        return self.stream(ids, **sampling)

    def translate(self, text: str, **settings: Any) -> str:
        """What an encoder-decoder makes of a text; T5 wants its task in it ("translate English to German: ...")."""
        if self.model.encoder is None:
            raise MaturaError("this model has no encoder to read a text with; use `generate` or `chat`")
        return self.generate(text, **settings)

    def fill(self, text: str, *, top_k: int = 5) -> list[list[Fill]]:
        """For each mask in the text, from the first to the last, its `top_k` likeliest tokens."""
        from matura.infer import fill

        checks.whole(top_k, "top_k")
        (found,) = fill.fill(self.model, self.tokenizer, [checks.text(text)], top_k=top_k)
        return [list(fills) for fills in found.fills]

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        pool: Named = "mean",
        normalize: bool = True,
        max_tokens: int | None = None,
        batch: int = 16,
    ) -> Tensor:
        """Texts as vectors [N, D], or one text as [D], in float32 on the CPU.

        Of a text longer than `max_tokens` (256, or the context if that is shorter) the end is cut off, with a warning.
        """
        from matura.infer import embed

        checks.whole(batch, "batch")
        rows = self._clipped(checks.texts(texts), max_tokens, embed.TOKENS)
        vectors = embed.embed(self.model, rows, pool=pool, normalize=normalize, batch=batch)
        return vectors[0] if isinstance(texts, str) else vectors

    @overload
    def classify(  # type: ignore[overload-overlap]
        self, texts: str, *, max_tokens: int | None = ..., batch: int = ...
    ) -> Scores: ...
    @overload
    def classify(
        self, texts: Sequence[str], *, max_tokens: int | None = ..., batch: int = ...
    ) -> list[Scores]: ...
    def classify(
        self, texts: str | Sequence[str], *, max_tokens: int | None = None, batch: int = 16
    ) -> Scores | list[Scores]:
        """(label, probability), likeliest first, for a text or for each of several.

        Of a text longer than `max_tokens` (the context) the end is cut off, with a warning.
        """
        from matura.infer import classify

        checks.whole(batch, "batch")
        given = checks.texts(texts)
        names = classify.labels(self.model)
        rows = self._clipped(given, max_tokens)
        scores = classify.classify(self.model, rows, batch=batch).tolist()
        found = [sorted(zip(names, row, strict=True), key=lambda one: -one[1]) for row in scores]
        return found[0] if isinstance(texts, str) else found

    @overload
    def reward(self, messages: Sequence[Message], answers: str) -> float: ...  # type: ignore[overload-overlap]
    @overload
    def reward(self, messages: Sequence[Message], answers: Sequence[str]) -> list[float]: ...
    def reward(self, messages: Sequence[Message], answers: str | Sequence[str]) -> float | list[float]:
        """What a reward model makes of an answer to a conversation, or of each of several: more is better. Only answers
        to one conversation can be compared."""
        from matura.align.reward_model import Judge
        from matura.core.preferences import Ranking

        talk = tuple(dict(message) for message in checks.messages(messages))
        if not talk or talk[-1].get("role") == "assistant":
            raise ConfigError(
                "messages: a conversation up to what is answered; the answers stand by themselves"
            )
        many = checks.texts(answers, "answers")
        (scores,) = Judge(self.model, self.format).scores([Ranking("messages", talk)], [many])
        return scores[0] if isinstance(answers, str) else scores

    def _clipped(self, texts: list[str], max_tokens: int | None, usual: int | None = None) -> list[list[int]]:
        """The ids of texts, cut at `max_tokens`, or at `usual`, and at the context, with a warning."""
        from matura.infer import reading

        wanted = usual if max_tokens is None else checks.whole(max_tokens, "max_tokens")
        longest = min(wanted or sys.maxsize, reading.longest(self.model))
        rows, cut = reading.clipped(self.tokenizer, texts, longest)
        if cut:
            warnings.warn(
                f"{len(cut)} of {len(texts)} texts are longer than {longest} tokens and were cut there (the first: "
                f"text {cut[0]}); set max_tokens to read more",
                stacklevel=3,
            )
        return rows

    def score(self, text: str, continuation: str | None = None, *, window: int | None = None) -> Likelihood:
        """The log-probability of a text, or of a continuation of it, with perplexity and bits per byte."""
        from matura.evaluate import likelihood

        checks.text(text)
        if continuation is None:
            return likelihood.text(self.model, self.format, text, window=window)
        checks.text(continuation, "continuation")
        return likelihood.continuation(self.model, self.format, text, continuation, window=window)

    def sampling(self, **given: Any) -> Sampling:
        """The model's own defaults with `given` on top."""
        checks.no_beams(given)
        defaults, unknown = generation_defaults(self.format.generation)
        if unknown:
            place = self.artifact.path / "generation.json"
            warnings.warn(
                f"{place}: the model's own defaults have {', '.join(unknown)}, which Matura does not follow; its "
                "answers may differ from those its makers meant",
                stacklevel=2,
            )
        if self.model.encoder is not None:
            defaults = {"temperature": 0, **defaults}
        return config.parse(Sampling, {**defaults, **given}, "sampling")

    def beams(self, **given: Any) -> Beams:
        """The model's own defaults of a beam search with `given` on top."""
        checks.no_draws(given)
        own = {name: value for name, value in self.format.generation.items() if name in Beams.model_fields}
        return config.parse(Beams, {**own, **given}, "beam search")

    def request(self, prompt: str | Ids, sampling: Sampling, adapter: str | None = None) -> Request:
        """A prompt as the engine takes it. Raises ConfigError for an adapter that was not loaded."""
        from matura.infer.engine import Request

        source: list[int] = []
        ids = self._ids(prompt)
        if self.model.encoder is not None:
            source, ids = ids, []
        # What separates documents ends a text even where only the end of a turn is called a stop token.
        ends = (*self.format.stop_ids, self.tokenizer.eos_id, self.format.begin_id)
        # A tokenizer may know more tokens than the model has rows for; such a token never comes.
        known = [id for id in dict.fromkeys(ends) if id is not None and id < self.model.config.vocabulary]
        if adapter is not None and adapter not in self.adapters:
            known_names = config.did_you_mean(adapter, self.adapters) or "; this model was loaded without any"
            raise ConfigError(f"there is no adapter {adapter!r}{known_names}")
        chosen = None if adapter is None else self.adapters[adapter]
        return Request(ids, sampling, known, source, adapter=chosen)

    def _ids(self, prompt: str | Ids) -> list[int]:
        if not isinstance(prompt, str):
            return checks.ids(prompt)
        if self.model.encoder is not None:
            return self.tokenizer(prompt)
        begin = self.format.begin_id
        ids = [*self.tokenizer.prefix_ids, *self.tokenizer.encode(prompt)]
        return ids or ([] if begin is None else [begin])


def _adapter(model: Transformer, base: Artifact, name: str, source: Artifact | Path, device: str) -> Adapter:
    """One of several adapters on a model: an artifact's, or a folder of PEFT. Raises MaturaError when it was trained on
    another model, or cannot be one of several."""
    from matura.model import store
    from matura.model.peft import peft_files, routing

    if isinstance(source, Path):
        found = peft_files.read(source, model.config)
    elif store.adapter_settings(source.path) is None:
        raise ConfigError(f"adapter {name!r}: {source.path} is a whole model; load it by itself")
    elif (parent := source.input("model")).id != base.id:
        raise ConfigError(
            f"adapter {name!r} was trained on {parent.path}, not on {base.path}: it means nothing there"
        )
    else:
        found = store.read_adapter(source.path)
    routing.check(model, found, name)
    return found.to(device)


def device_name(device: str | int) -> str:
    """The name of a device, after a look whether it is there; n is "cuda:n", -1 the CPU, "cuda" the first GPU.
    Raises ConfigError."""
    import torch

    name = str(device)  # of a torch.device too
    if isinstance(device, int):
        name = "cpu" if device == -1 else f"cuda:{device}"
    name = "cuda:0" if name == "cuda" else name
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name not in there:
        raise ConfigError(f"there is no device {name!r} here; available: {', '.join(there)}")
    return name
