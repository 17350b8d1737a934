"""Answers to one prompt as token ids for a reward model: what is read, and how it is packed.

A decoder reads the prompt once, however many answers follow it. All answers of a ranking lie in one row.

Shape suffixes: T tokens of a row, N answers, P pairs, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matura.core.preferences import Answer, Pair, Ranking
from matura.model.attention import Packed
from matura.model.heads import Classifier
from matura.model.transformer import Transformer
from matura.tokenizer.conversation import Format


@dataclass(frozen=True, slots=True)
class Read:
    """What a model reads of several answers to one prompt: the ids that they share, and those of each."""

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Tokens that run through the model."""
        return len(self.prompt) + sum(map(len, self.answers))

    @property
    def longest(self) -> int:
        """Tokens of the longest answer with its prompt."""
        return len(self.prompt) + max(map(len, self.answers))


@dataclass(frozen=True, slots=True)
class Preference:
    """Of two answers, by their number, the preferred one and the other; see `preferences.Pair`."""

    chosen: int
    rejected: int
    margin: float = 0.0
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Ranked:
    """A ranking as a training example. `group` is what it shares a side of every split with."""

    read: Read
    pairs: tuple[Preference, ...]
    places: tuple[int, ...]
    """Of every answer: 1 is the best, equal places are ties."""
    group: str = ""

    @property
    def size(self) -> int:
        """Tokens that run through the model."""
        return self.read.size

    @property
    def trained(self) -> int:
        """Comparisons that are learned."""
        return len(self.pairs)


def read(format: Format, prompt: Ranking, answers: Sequence[str | Answer]) -> Read:
    """The ids of a prompt and of answers to it, as its model's own template writes them: each answer ends in its stop
    token, unless it ran out of tokens (`end`).

    A model without a template (an encoder) reads two texts: the conversation so far, as "role: text" lines, and the
    answer, with what its tokenizer puts around each. Raises MaturaError naming the prompt that cannot be written.
    """
    each = [Answer(one) if isinstance(one, str) else one for one in answers]
    if format.template is None:
        return _two_texts(format, prompt, each)
    start = tuple(format.prompt(prompt.messages, prompt.tools))
    ends = []
    for one in each:
        said = [*prompt.messages, {"role": "assistant", "content": one.text}]
        rendered = format.render(said, prompt.tools)
        _, begin, end = rendered.answers[-1]
        ends.append(tuple(rendered.ids[begin : end - (one.end == "length")]))
    return Read(start, tuple(ends))


def _two_texts(format: Format, prompt: Ranking, answers: Sequence[Answer]) -> Read:
    tokenizer = format.tokenizer
    talk = "\n".join(f"{one['role']}: {one['content']}" for one in prompt.messages)
    first, *rest = tokenizer.encode_batch([talk, *(one.text for one in answers)])
    prefix, suffix = tokenizer.prefix_ids, tokenizer.suffix_ids
    start = (*prefix, *first, *suffix)
    return Read((), tuple((*start, *ids, *suffix) for ids in rest))


def ranked(format: Format, ranking: Ranking, pairs: Sequence[Pair]) -> Ranked | None:
    """A ranking with its `pairs` as an example: the answers that stand in one. None where there are no pairs."""
    if not pairs:
        return None
    answers = list(dict.fromkeys(one for pair in pairs for one in (pair.chosen, pair.rejected)))
    number = {one: i for i, one in enumerate(answers)}
    better = Counter(number[pair.rejected] for pair in pairs)
    preferences = tuple(
        Preference(number[pair.chosen], number[pair.rejected], pair.margin or 0.0, pair.weight)
        for pair in pairs
    )
    # In an order with ties, those of one place have equally many above them.
    places = tuple(1 + better[i] for i in range(len(answers)))
    return Ranked(read(format, ranking, answers), preferences, places, ranking.group or ranking.id)


@dataclass(frozen=True)
class RankedBatch:
    """One packed row [1, T] of rankings; `at_N` is where each answer is read, and the pairs index those answers.

    `places` has those of each ranking, in the order of its answers; `sources` is as in `batches.PackedBatch`.
    """

    ids_1T: Tensor
    mask: Packed
    at_N: Tensor
    chosen_P: Tensor
    rejected_P: Tensor
    margins_P: Tensor
    weights_P: Tensor
    places: tuple[tuple[int, ...], ...]
    sources: tuple[int, ...] = ()

    @property
    def weight(self) -> float:
        """Rankings: each counts once, however many answers it has."""
        return float(len(self.places))

    @property
    def tokens(self) -> int:
        """Tokens that run through the model."""
        return self.ids_1T.shape[1]


def pack_ranked(examples: Sequence[Ranked], device: str = "cpu", *, pool: str = "last") -> RankedBatch:
    """Lay rankings end to end; `pool` says whether an answer's first or last token is read."""
    ids_1T, mask, at_N = pack_read([one.read for one in examples], device, pool=pool)
    numbered: list[tuple[int, int, float, float]] = []
    first = 0
    for one in examples:
        numbered += [(first + p.chosen, first + p.rejected, p.margin, p.weight) for p in one.pairs]
        first += len(one.places)
    chosen, rejected, margins, weights = zip(*numbered, strict=True) if numbered else ((), (), (), ())
    return RankedBatch(
        ids_1T,
        mask,
        at_N,
        torch.tensor(chosen, dtype=torch.long, device=device),
        torch.tensor(rejected, dtype=torch.long, device=device),
        torch.tensor(margins, dtype=torch.float32, device=device),
        torch.tensor(weights, dtype=torch.float32, device=device),
        tuple(one.places for one in examples),
    )


def pack_read(
    texts: Sequence[Read], device: str = "cpu", *, pool: str = "last"
) -> tuple[Tensor, Packed, Tensor]:
    """Ids [1, T], the sequences in them (answers continue their prompt), and where each answer is read [N]."""
    ids: list[int] = []
    at: list[int] = []
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
            at.append(len(ids) if pool == "first" else len(ids) + len(answer) - 1)
            lengths.append(len(answer))
            parents.append(parent)
            ids += answer
    continued = tuple(parents) if any(parent is not None for parent in parents) else ()
    return (
        torch.tensor([ids], device=device),
        Packed(tuple(lengths), continued),
        torch.tensor(at, dtype=torch.long, device=device),
    )


def rewards(model: Transformer, ids_1T: Tensor, mask: Packed, at_N: Tensor) -> Tensor:
    """The rewards [N] of the answers in a packed row, read where `at_N` says: positions, never pad ids."""
    head = model.head
    if not isinstance(head, Classifier):
        raise TypeError("the model has no reward head")
    run = model.decode if model.encoder is None else model.encode
    hidden_1TD = run(ids_1T, mask=mask)
    return head.scores(hidden_1TD[0, at_N])[:, 0]
