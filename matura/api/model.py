"""A model ready to use: its weights, tokenizer and conversation format, and what one does with them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
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
    from matura.infer.embed import Pool
    from matura.infer.engine import Request
    from matura.infer.fill import Fill
    from matura.infer.text import Answer
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
    generation defaults; unknown ones are refused by name. A prompt is a text or the ids of one. With an encoder (T5)
    the prompt is what the encoder reads, and the default is the likeliest token each time.
    """

    def __init__(self, made: Artifact, device: str | int = "cpu") -> None:
        from matura.model import store
        from matura.model.allocator import keep_freed_memory
        from matura.tokenizer import conversation

        keep_freed_memory()
        self.artifact = made
        self.device = device_name(device)
        self.format: Format = conversation.load(made.path)
        self.model: Transformer = store.load_for_inference(made.path, device=self.device)

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back."""
        return self.format.tokenizer

    @overload
    def generate(self, prompt: str, **settings: Any) -> str: ...
    @overload
    def generate(self, prompt: Ids, **settings: Any) -> list[int]: ...
    def generate(self, prompt: str | Ids, **settings: Any) -> str | list[int]:
        """What follows a prompt: a text after a text, new ids after ids (without the prompt and the stop token).

        With `beams=N`, or where the model's own defaults say so and nothing is set that only sampling knows, it is the
        best answer of a beam search (`matura.core.settings.Beams`).
        """
        if settings.get("n", 1) != 1:
            raise ConfigError("n: generate gives one answer; several come from `answers` or `beam_search`")
        if self.searches(settings):
            ids = self.beam_search(prompt, **settings)[0].ids
        elif isinstance(prompt, str):
            return "".join(self.stream(prompt, **settings))
        else:
            ids = self.answers([prompt], **settings)[0].ids
        return self.tokenizer.decode(ids, skip_special=True) if isinstance(prompt, str) else list(ids)

    def stream(self, prompt: str | Ids, **sampling: Any) -> Iterator[str]:
        """The text that follows a prompt, piece by piece. The prompt begins as the tokenizer says a text begins; an
        empty one begins as documents do."""
        from matura.infer.text import stream_text

        asked = self.request(prompt, self.sampling(**sampling))
        return stream_text(
            self.model, self.tokenizer, asked.ids, asked.sampling, asked.stop_ids, asked.source
        )

    def answers(self, prompts: Sequence[str | Ids], *, batch: int = 16, **sampling: Any) -> list[Answer]:
        """Answers to many prompts, `batch` at a time, each with text, ids, reason to end and, with `logprobs`,
        log-probabilities. With `n` above 1 the answers to one prompt stand side by side."""
        from matura.infer import text

        checks.whole(batch, "batch")
        many = checks.several(prompts, "prompts", "a list of prompts (`generate` takes a single one)")
        settings = self.sampling(**sampling)
        requests = [self.request(prompt, settings) for prompt in many]
        return text.answers(self.model, self.tokenizer, requests, batch=batch)

    def beam_search(self, prompt: str | Ids, **settings: Any) -> list[Answer]:
        """The best `n` answers of a beam search, best first."""
        from matura.infer import beam
        from matura.infer.text import Answer

        asked = self.request(prompt, Sampling())
        found = beam.search(self.model, asked.ids, self.beams(**settings), asked.stop_ids, asked.source)
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
        pool: Pool = "mean",
        normalize: bool = True,
        max_tokens: int | None = None,
        batch: int = 16,
    ) -> Tensor:
        """Texts as vectors [N, D], or one text as [D], in float32 on the CPU.

        Of a text longer than `max_tokens` (256, or the context if that is shorter) the end is cut off, with a warning.
        """
        from matura.infer import embed, reading

        checks.whole(batch, "batch")
        many = checks.texts(texts)
        wanted = embed.TOKENS if max_tokens is None else checks.whole(max_tokens, "max_tokens")
        longest = min(wanted, reading.longest(self.model))
        rows, cut = reading.clipped(self.tokenizer, many, longest)
        if cut:
            warnings.warn(
                f"{len(cut)} of {len(many)} texts are longer than {longest} tokens and were cut there (the first: "
                f"text {cut[0]}); set max_tokens to read more",
                stacklevel=2,
            )
        vectors = embed.embed(self.model, rows, pool=pool, normalize=normalize, batch=batch)
        return vectors[0] if isinstance(texts, str) else vectors

    @overload
    def classify(self, texts: str, *, batch: int = ...) -> Scores: ...  # type: ignore[overload-overlap]
    @overload
    def classify(self, texts: Sequence[str], *, batch: int = ...) -> list[Scores]: ...
    def classify(self, texts: str | Sequence[str], *, batch: int = 16) -> Scores | list[Scores]:
        """(label, probability), likeliest first, for a text or for each of several."""
        from matura.infer import classify

        checks.whole(batch, "batch")
        many = checks.texts(texts)
        scores = classify.classify(self.model, [self.tokenizer(text) for text in many], batch=batch).tolist()
        names = classify.labels(self.model)
        found = [sorted(zip(names, row, strict=True), key=lambda one: -one[1]) for row in scores]
        return found[0] if isinstance(texts, str) else found

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

    def request(self, prompt: str | Ids, sampling: Sampling) -> Request:
        """A prompt as the engine takes it."""
        from matura.infer.engine import Request

        source: list[int] = []
        ids = self._ids(prompt)
        if self.model.encoder is not None:
            source, ids = ids, []
        # What separates documents ends a text even where only the end of a turn is called a stop token.
        ends = (*self.format.stop_ids, self.tokenizer.eos_id, self.format.begin_id)
        # A tokenizer may know more tokens than the model has rows for; such a token never comes.
        known = [id for id in dict.fromkeys(ends) if id is not None and id < self.model.config.vocabulary]
        return Request(ids, sampling, known, source)

    def _ids(self, prompt: str | Ids) -> list[int]:
        if not isinstance(prompt, str):
            return checks.ids(prompt)
        if self.model.encoder is not None:
            return self.tokenizer(prompt)
        begin = self.format.begin_id
        ids = [*self.tokenizer.prefix_ids, *self.tokenizer.encode(prompt)]
        return ids or ([] if begin is None else [begin])


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
