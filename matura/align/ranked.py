"""Answers to one prompt as a reward model reads them: token ids, packed rows, and the rewards in them.

A decoder reads the prompt once, however many answers follow it. All answers of a ranking lie in one row.

Shape suffixes: T tokens of a row, N answers, P pairs, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from matura.align import preferred
from matura.align.preferred import Choice, Write
from matura.align.reward_losses import MAX_TIED
from matura.align.sequences import Prompted
from matura.core.preferences import Answer, Ranking
from matura.data.preferences import pairs
from matura.model.attention import Packed
from matura.model.classifying import span_scores
from matura.model.transformer import Transformer
from matura.tokenizer.conversation import Format

TIED = "too many ties"
Spans = tuple[tuple[int, int], ...]


def two_texts(format: Format, prompt: Ranking, answer: Answer) -> Prompted:
    """What an encoder reads: the conversation so far, as "role: text" lines, and the answer, each with what its
    tokenizer puts around a text. It sees both sides of every token, so no prompt is shared."""
    tokenizer = format.tokenizer
    talk = "\n".join(f"{one['role']}: {one['content']}" for one in prompt.messages)
    first, second = tokenizer.encode_batch([talk, answer.text])
    prefix, suffix = tokenizer.prefix_ids, tokenizer.suffix_ids
    return Prompted((), ((*prefix, *first, *suffix, *second, *suffix),))


def write_for(model: Transformer) -> Write:
    """How answers are written for a model: by its own template, or for an encoder as two texts."""
    return preferred.answered if model.encoder is None else two_texts


def read(write: Write, format: Format, prompt: Ranking, answers: Sequence[str | Answer]) -> Prompted:
    """A prompt with answers to it, each to its stop token, or to where it was cut (`end`). A text is a finished answer.

    Raises MaturaError naming the prompt that the template cannot write.
    """
    each = [write(format, prompt, Answer(one) if isinstance(one, str) else one) for one in answers]
    return Prompted(each[0].prompt if each else (), tuple(one.answers[0] for one in each))


def tokens(text: Prompted) -> int:
    """Tokens that run through the model: also the last ones, where rewards are read."""
    return len(text.prompt) + sum(map(len, text.answers))


@dataclass(frozen=True, slots=True)
class Ranked:
    """A ranking as a training example.

    `choices` say which answer was preferred to which; their weights sum to 1 where no pair was dropped. `places` has
    every answer's: 1 is the best, equal places are ties. `number` is the ranking's, in what was read.
    """

    text: Prompted
    choices: tuple[Choice, ...]
    places: tuple[int, ...]
    number: int = 0

    @property
    def size(self) -> int:
        """Tokens that run through the model."""
        return tokens(self.text)

    @property
    def trained(self) -> int:
        """Comparisons that are learned."""
        return len(self.choices)


class Made(NamedTuple):
    """Rankings as examples, and how many pairs were dropped for each reason."""

    examples: list[Ranked]
    dropped: Counter[str]


def ranked(
    rankings: Iterable[Ranking], format: Format, length: int, write: Write, *, most_tied: int = MAX_TIED
) -> Made:
    """Examples of the rankings in which an answer is preferred to another.

    A pair is dropped when one of its answers with the prompt has more than `length` tokens, and a ranking when more
    than `most_tied` answers share one place above others.
    """
    made = Made([], Counter())
    for number, ranking in enumerate(rankings):
        found = preferred.from_pairs(pairs.of(ranking), format, length, write=write)
        made.dropped.update(found.dropped)
        for one in found.preferred:
            example = Ranked(one.prompted, one.choices, _places(one.choices, len(one.answers)), number)
            shared = Counter(place for place in example.places if place < max(example.places))
            if max(shared.values(), default=0) > most_tied:
                made.dropped[TIED] += len(one.choices)
            else:
                made.examples.append(example)
    return made


def _places(choices: Sequence[Choice], answers: int) -> tuple[int, ...]:
    """In an order with ties, answers of one place have equally many above them."""
    above = Counter(one.rejected for one in choices)
    return tuple(1 + above[i] for i in range(answers))


@dataclass(frozen=True)
class RankedBatch:
    """One packed row [1, T] of rankings; `spans_N` is where each answer lies, and the pairs index those answers.

    `places` has those of each ranking, in the order of its answers.
    """

    ids_1T: Tensor
    mask: Packed
    spans_N: Spans
    chosen_P: Tensor
    rejected_P: Tensor
    margins_P: Tensor
    weights_P: Tensor
    places: tuple[tuple[int, ...], ...]

    @property
    def weight(self) -> float:
        """Rankings: each counts once, however many answers it has."""
        return float(len(self.places))

    @property
    def tokens(self) -> int:
        """Tokens that run through the model."""
        return self.ids_1T.shape[1]


def pack_ranked(examples: Sequence[Ranked], device: str = "cpu") -> RankedBatch:
    """Lay rankings end to end."""
    ids_1T, mask, spans_N = pack_texts([one.text for one in examples], device)
    chosen: list[int] = []
    rejected: list[int] = []
    margins: list[float] = []
    weights: list[float] = []
    first = 0
    for one in examples:
        for choice in one.choices:
            chosen.append(first + choice.chosen)
            rejected.append(first + choice.rejected)
            margins.append(choice.margin or 0.0)
            weights.append(choice.weight)
        first += len(one.places)
    return RankedBatch(
        ids_1T,
        mask,
        spans_N,
        torch.tensor(chosen, dtype=torch.long, device=device),
        torch.tensor(rejected, dtype=torch.long, device=device),
        torch.tensor(margins, dtype=torch.float32, device=device),
        torch.tensor(weights, dtype=torch.float32, device=device),
        tuple(one.places for one in examples),
    )


def pack_texts(texts: Sequence[Prompted], device: str = "cpu") -> tuple[Tensor, Packed, Spans]:
    """Ids [1, T], the sequences in them (answers continue their prompt), and the (start, end) of each answer."""
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    lengths: list[int] = []
    parents: list[int | None] = []
    for text in texts:
        parent = None
        if text.prompt:
            parent = len(lengths)
            lengths.append(len(text.prompt))
            parents.append(None)
            ids += text.prompt
        for answer in text.answers:
            spans.append((len(ids), len(ids) + len(answer)))
            lengths.append(len(answer))
            parents.append(parent)
            ids += answer
    continued = tuple(parents) if any(parent is not None for parent in parents) else ()
    return (
        torch.tensor([ids], device=device),
        Packed(tuple(lengths), continued),
        tuple(spans),
    )


def rewards(model: Transformer, ids_1T: Tensor, mask: Packed, spans_N: Spans) -> Tensor:
    """The rewards [N] of the answers in a packed row."""
    return span_scores(model, ids_1T, mask, spans_N)[:, 0]
