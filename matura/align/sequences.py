"""Log-probabilities of answers: what DPO, PPO and GRPO compute their losses from.

Answers to one prompt lie in one row as a tree: the prompt is read once, and every answer continues it. Nothing is
padded, nothing sees another answer, and a row computes what each answer would alone after its prompt.

Shape suffixes: T tokens of a row, N answer tokens, S answers, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from matura.model.attention import Packed
from matura.model.likelihoods import Likelihoods, likelihoods
from matura.model.transformer import Transformer
from matura.train.batches import features

Ids = tuple[int, ...]


class Prompted(NamedTuple):
    """A prompt and its answers as token ids, each answer with its stop token where it has one."""

    prompt: Ids
    answers: tuple[Ids, ...]

    @property
    def size(self) -> int:
        """Tokens that run through the model."""
        return len(self.prompt) + sum(max(0, len(answer) - 1) for answer in self.answers)


@dataclass(frozen=True)
class AnswerBatch:
    """One row of prompts and answers: ids [1, T] and who sees whom; for the answers' tokens, answer after answer, the
    position whose hidden state predicts each, and the token [N]; and how many tokens each of the S answers has."""

    ids_1T: Tensor
    mask: Packed
    where_N: Tensor
    targets_N: Tensor
    counts: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens that run through the model."""
        return self.ids_1T.shape[1]

    @property
    def answer_N(self) -> Tensor:
        """The number of the answer that each token belongs to."""
        counts_S = torch.tensor(self.counts, device=self.ids_1T.device)
        return torch.arange(len(self.counts), device=counts_S.device).repeat_interleave(counts_S)

    def per_answer(self, values_N: Tensor) -> tuple[Tensor, ...]:
        """Values of tokens, answer by answer."""
        return values_N.split(list(self.counts))


def pack_answers(prompted: Sequence[Prompted], device: str | torch.device = "cpu") -> AnswerBatch:
    """Lay prompts with their answers end to end. The last token of an answer predicts nothing, so it is left out.

    Raises ValueError for an empty prompt: nothing would predict the first token.
    """
    ids: list[int] = []
    lengths: list[int] = []
    parents: list[int | None] = []
    where: list[int] = []
    targets: list[int] = []
    counts: list[int] = []

    def add(new: Sequence[int], parent: int | None) -> int:
        ids.extend(new)
        lengths.append(len(new))
        parents.append(parent)
        return len(lengths) - 1

    for i, (prompt, answers) in enumerate(prompted):
        if not prompt:
            raise ValueError(f"prompt {i} is empty; give at least one token (usually BOS)")
        alone = len(answers) == 1
        trunk = add((*prompt, *answers[0][:-1]) if alone else prompt, None)
        last = len(ids) - lengths[trunk] + len(prompt) - 1  # the prompt's last token
        for answer in answers:
            if answer:
                start = last + 1 if alone else len(ids)
                where += [last, *range(start, start + len(answer) - 1)]
                targets += answer
            counts.append(len(answer))
            if len(answer) > 1 and not alone:
                add(answer[:-1], trunk)
    branched = any(parent is not None for parent in parents)
    return AnswerBatch(
        torch.tensor([ids], dtype=torch.long, device=device),
        Packed(tuple(lengths), tuple(parents) if branched else ()),
        torch.tensor(where, dtype=torch.long, device=device),
        torch.tensor(targets, dtype=torch.long, device=device),
        tuple(counts),
    )


def token_logprobs(
    model: Transformer, batch: AnswerBatch, temperature: float = 1.0, entropy: bool = False
) -> Likelihoods:
    """log p of every answer token [N] at the temperature, and the entropies [N] if asked for; with gradient.

    Logits of a few hundred positions exist at a time and are never kept (`model.likelihoods`).
    """
    return likelihoods(
        features(model, batch), model.unembedding, batch.targets_N, temperature=temperature, entropy=entropy
    )


Reference = Callable[[AnswerBatch], Tensor]
"""Log-probabilities [N] of a model that does not learn, at one temperature, without gradient."""


def frozen(model: Transformer, temperature: float) -> Reference:
    """A model that does not learn as the reference."""
    model.eval().requires_grad_(False)

    @torch.no_grad()
    def read(batch: AnswerBatch) -> Tensor:
        return token_logprobs(model, batch, temperature).logprobs_N

    return read


class Sums(NamedTuple):
    """log p of every answer [S] after its prompt, and how many tokens it has [S]."""

    logprobs_S: Tensor
    counts_S: Tensor

    @property
    def means_S(self) -> Tensor:
        """log p a token; 0 for an answer without one."""
        return self.logprobs_S / self.counts_S.clamp(min=1)


def sequence_logprobs(model: Transformer, batch: AnswerBatch, temperature: float = 1.0) -> Sums:
    """log p of every answer, with gradient."""
    return sums(batch, token_logprobs(model, batch, temperature).logprobs_N)


def sums(batch: AnswerBatch, logprobs_N: Tensor) -> Sums:
    """Tokens' log-probabilities added up answer by answer, in an order that depends on nothing else in the row."""
    logprobs_S = torch.stack([part.sum() for part in batch.per_answer(logprobs_N)])
    counts_S = torch.tensor(batch.counts, dtype=logprobs_S.dtype, device=logprobs_S.device)
    return Sums(logprobs_S, counts_S)


def sequence_logprobs_reference(
    model: Transformer, batch: Sequence[Prompted], temperature: float = 1.0
) -> Sums:
    """The same, an answer at a time, every prompt read again, all logits at once."""
    found, counts = [], []
    device = model.embed.weight.device
    for prompt, answers in batch:
        for answer in answers:
            ids_1T = torch.tensor([[*prompt, *answer]], device=device)
            logits_TV = model.logits(model.decode(ids_1T)[0, len(prompt) - 1 : -1]) / temperature
            logprobs_TV = logits_TV.log_softmax(-1)
            found.append(logprobs_TV.gather(1, ids_1T[0, len(prompt) :, None]).sum())
            counts.append(len(answer))
    logprobs_S = torch.stack(found)
    return Sums(logprobs_S, torch.tensor(counts, dtype=logprobs_S.dtype, device=device))
