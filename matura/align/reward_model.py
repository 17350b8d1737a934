"""A reward model: a decoder or an encoder whose head has one label, and what it says of answers.

The reward of an answer is read at its last token, which is the stop token of the model's own template where the answer
was finished. An encoder's is read from the mean of all tokens, which sentence encoders were made for, and which some
hundred rankings teach more than the first token. It depends on no other answer, batch or padding.

Shape suffixes: N answers, T tokens of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from matura.align.ranked import pack_texts, read, rewards, tokens, write_for
from matura.align.sequences import Prompted
from matura.core.errors import ConfigError, MaturaError
from matura.core.grouping import neighbours
from matura.core.preferences import Answer, Ranking
from matura.infer.reading import longest
from matura.model import config as c
from matura.model import store
from matura.model.classifying import head_for, set_head
from matura.model.transformer import Transformer
from matura.tokenizer import conversation
from matura.tokenizer.conversation import Format

LABEL = "reward"
ROW = 2048
"""Tokens read at a time."""


def set_reward_head(model: Transformer, seed: int = 0) -> Transformer:
    """Give a model the head of a reward model, to be trained as a whole; one that has it keeps it. Raises ConfigError
    for an encoder-decoder."""
    if model.encoder is not None and model.decoder is not None:
        raise ConfigError("a reward model is a decoder or an encoder, and this model is both in one")
    if model.encoder is None:
        head = head_for(model.config, (LABEL,))
    else:
        head = c.Classifier(labels=(LABEL,), pool="mean", hidden="none")
    set_head(model, head, seed)
    assert model.head is not None
    model.head.requires_grad_(True)
    return model


@dataclass(frozen=True)
class Judge:
    """A reward model with its conversation format, ready to judge."""

    model: Transformer
    format: Format

    def __post_init__(self) -> None:
        head = self.model.config.head
        if not isinstance(head, c.Classifier) or len(head.labels) != 1:
            raise MaturaError(
                "this is no reward model: it has no head with one label. Train one with `matura reward`"
            )

    @classmethod
    def load(cls, path: str | Path, *, device: str = "cpu") -> Judge:
        """The judge of a model artifact, updates merged. Raises ArtifactError, FormatError, or MaturaError when it is
        no reward model."""
        model, format = store.load_for_inference(path, device=device), conversation.load(path)
        try:
            return cls(model, format)
        except MaturaError as error:
            raise MaturaError(f"{path}: {error}") from error

    def scores(
        self, prompts: Sequence[Ranking], answers: Sequence[Sequence[str | Answer]], *, row: int = ROW
    ) -> list[list[float]]:
        """The reward of every answer to every prompt, more is better: `answers[i]` are those to `prompts[i]`.

        A text counts as finished; an `Answer` whose end is "length" is read without a stop token. `row` is about how
        many tokens are read at a time, and changes no reward. Raises MaturaError for what is longer than the context.
        """
        texts, most = self.texts(prompts, answers), longest(self.model)
        for prompt, text in zip(prompts, texts, strict=True):
            longest_one = len(text.prompt) + max(map(len, text.answers), default=0)
            if longest_one > most:
                raise MaturaError(
                    f"prompt {prompt.id!r} with its longest answer has {longest_one} tokens, and the reward model's "
                    f"context is {most}; shorten it"
                )
        return self.rewards(texts, row=row)

    def texts(self, prompts: Sequence[Ranking], answers: Sequence[Sequence[str | Answer]]) -> list[Prompted]:
        """What is read for them, as token ids."""
        write = write_for(self.model)
        return [read(write, self.format, one, its) for one, its in zip(prompts, answers, strict=True)]

    @torch.no_grad()
    def rewards(self, texts: Sequence[Prompted], *, row: int = ROW) -> list[list[float]]:
        """The rewards of answers that are token ids already."""
        found: list[list[float]] = [[] for _ in texts]
        device = str(self.model.embed.weight.device)
        for indices in _rows(texts, row):
            packed = pack_texts([texts[i] for i in indices], device)
            values = iter(rewards(self.model, *packed).tolist())
            for i in indices:
                found[i] = [next(values) for _ in texts[i].answers]
        return found


def _rows(texts: Sequence[Prompted], room: int) -> Iterator[list[int]]:
    """Which texts are read together, about `room` tokens at a time: long ones first, like lengths in one row."""
    sizes = [tokens(text) if text.answers else 0 for text in texts]
    order = sorted((i for i, size in enumerate(sizes) if size), key=lambda i: (-sizes[i], i))
    return neighbours(order, room, sizes.__getitem__)
