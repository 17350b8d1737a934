"""Batches that a model makes itself: it answers prompts, the answers are judged, and the groups become updates.

An iteration answers some prompts and is used for `epochs` x `minibatches` updates. What an update needs of a running
iteration is part of the state, so a run that was killed goes on with the same answers.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matura.align import groups, rollouts
from matura.align.grpo import GroupBatch, Judged, Surrogate, pack_groups
from matura.align.ppo import Tally
from matura.align.rewards import Scores, Weighted
from matura.align.rollouts import Rollout
from matura.align.sequences import Reference
from matura.core.errors import MaturaError
from matura.core.preferences import Ranking
from matura.train.order import Permutation

Answer = Callable[[Sequence[Ranking], int], list[Rollout]]
"""(prompts, iteration) -> the same number of answers to each, side by side."""

PATIENCE = 3
"""Iterations in which every reward with a weight must have judged something."""

Check = Callable[[Sequence[Rollout]], float]
"""Refuses answers that were not drawn from what is trained; the largest difference found."""


@dataclass(frozen=True)
class Schedule:
    """How an iteration becomes updates: `prompts` are answered, the groups are gone through `epochs` times, each time
    cut into `minibatches` updates, whose gradients are computed in `accumulate` pieces."""

    prompts: int
    epochs: int = 1
    minibatches: int = 1
    accumulate: int = 1

    @property
    def updates(self) -> int:
        """Updates of one iteration."""
        return self.epochs * self.minibatches

    @property
    def batches(self) -> int:
        """Batches of one iteration."""
        return self.updates * self.accumulate


@dataclass(frozen=True)
class Answered:
    """A prompt, by its place in the list of prompts, with its answers and their rewards."""

    prompt: int
    rollouts: tuple[Rollout, ...]
    rewards: tuple[float | None, ...]


class Practice:
    """An endless iterator of batches of groups, with a position that can be saved (a `train.finetuning.Source`)."""

    def __init__(
        self,
        prompts: Sequence[Ranking],
        answer: Answer,
        check: Check,
        rewards: Weighted,
        schedule: Schedule,
        settings: Surrogate,
        kind: groups.Kind,
        *,
        reference: Reference | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.prompts, self.schedule, self.settings, self.kind = tuple(prompts), schedule, settings, kind
        self.answer, self.check, self.rewards = answer, check, rewards
        self.reference, self.seed, self.device = reference, seed, device
        self.tally = Tally()
        self._iteration, self._next = 0, 0
        self._answered: list[Answered] = []
        self._told: dict[str, float] = {}
        self._read, self._made = 0, 0
        self._judged: set[str] = set()  # rewards that have judged anything

    def __iter__(self) -> Iterator[GroupBatch]:
        return self

    def __next__(self) -> GroupBatch:
        if self._next == 0:
            self._answered = self._round()
        batch = self._batch(self._next)
        self._next += 1
        if self._next == self.schedule.batches:
            self._iteration, self._next = self._iteration + 1, 0
        self._read, self._made = self._read + batch.tokens, self._made + 1
        return batch

    def notes(self) -> dict[str, float]:
        """The figures of the update that was just made, and with the first of an iteration those of its answers."""
        told, self._told = self._told, {}
        return told | self.tally.taken()

    @property
    def mean_tokens(self) -> float:
        """Tokens of an average batch so far; before the first a guess."""
        if not self._made:
            return float(self.schedule.prompts * 64 / self.schedule.minibatches / self.schedule.accumulate)
        return self._read / self._made

    @property
    def epochs(self) -> list[float]:
        """How often the prompts have been answered."""
        return [(self._iteration + (self._next > 0)) * self.schedule.prompts / len(self.prompts)]

    def state(self) -> dict[str, Any]:
        """The position, as JSON values; inside an iteration with its answers."""
        found: dict[str, Any] = {
            "iteration": self._iteration,
            "next": self._next,
            "judged": sorted(self._judged),
            "answered": [],
        }
        if self._next:
            found["answered"] = [
                {
                    "prompt": one.prompt,
                    "prompt_ids": list(one.rollouts[0].prompt_ids),
                    "rollouts": [answer.state() for answer in one.rollouts],
                    "rewards": list(one.rewards),
                }
                for one in self._answered
            ]
        return found

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a position that `state` gave."""
        self._iteration, self._next = state["iteration"], state["next"]
        self._judged = set(state["judged"])
        self._answered = [
            Answered(
                one["prompt"],
                tuple(
                    Rollout.restored(answer, self.prompts[one["prompt"]], one["prompt_ids"])
                    for answer in one["rollouts"]
                ),
                tuple(one["rewards"]),
            )
            for one in state["answered"]
        ]
        self._told = {}

    def _round(self) -> list[Answered]:
        """Answer the next prompts, and judge the answers."""
        chosen = drawn(len(self.prompts), self.schedule.prompts, self._iteration, self.seed)
        written = self.answer([self.prompts[i] for i in chosen], self._iteration)
        gap = self.check(written)
        scores = self.rewards([rollouts.completion(one) for one in written])
        if self._iteration == 0:
            check_judged(scores)
        self._judged |= scores.heard
        check_heard(self.rewards, self._judged, self._iteration + 1)
        k = len(written) // len(chosen)
        answered = [
            Answered(i, tuple(written[at * k : (at + 1) * k]), tuple(scores.total[at * k : (at + 1) * k]))
            for at, i in enumerate(chosen)
        ]
        made = [groups.advantages(one.rewards, self.kind) for one in answered]
        self._told = {**told(written, scores), **told_of_groups(answered, made), "rollout_gap": gap}
        return answered

    def _batch(self, at: int) -> GroupBatch:
        """Batch number `at` of this iteration."""
        schedule = self.schedule
        update, piece = divmod(at, schedule.accumulate)
        epoch, minibatch = divmod(update, schedule.minibatches)
        order = Permutation(len(self._answered), f"{self.seed}/{self._iteration}/{epoch}")
        mine = portion([order(i) for i in range(order.n)], minibatch, schedule.minibatches)
        judged = [judge(self._answered[i], self.kind) for i in mine]
        useless = self.reference is None and not any(value for one in judged for value in one.advantages)
        found = [one for one in portion(judged, piece, schedule.accumulate) if one.rollouts]
        # Without any gradient the optimizer would still move the weights by its momentum: nothing is to be done.
        return pack_groups([] if useless else found, self.settings, self.reference, self.device)


def check_heard(rewards: Weighted, judged: Collection[str], iterations: int) -> None:
    """Raises MaturaError when after `PATIENCE` iterations a reward with a weight is not among those that have judged
    anything: it would be missing from the sum without a word."""
    weighted = {part.name for part in rewards.parts if part.weight}
    if iterations >= PATIENCE and (silent := sorted(weighted - set(judged))):
        raise MaturaError(
            f"reward {silent[0]} has judged none of the answers of {iterations} iterations: prompts lack the facts "
            "that it reads (data.facts), or it is given something else than it expects; leave it out or repair it"
        )


def check_judged(scores: Scores) -> None:
    """Raises MaturaError when no answer at all was judged: the prompts lack what the rewards read."""
    if any(one is not None for one in scores.total):
        return
    raise MaturaError(
        f"none of the first {len(scores.total)} answers was judged by {', '.join(scores.each)}: the prompts lack what "
        "these rewards read, such as facts.gold (the right answer) or facts.tests, or are too long for a reward model"
    )


def judge(answered: Answered, kind: groups.Kind) -> Judged:
    """The answers that have an advantage, with it."""
    group = groups.advantages(answered.rewards, kind)
    pairs = [
        (one, value)
        for one, value in zip(answered.rollouts, group.advantages, strict=True)
        if value is not None
    ]
    return Judged(tuple(one for one, _ in pairs), tuple(value for _, value in pairs))


def drawn(count: int, wanted: int, iteration: int, seed: int) -> list[int]:
    """Which of `count` prompts an iteration answers: they come in an order that every pass shuffles anew."""
    found = []
    for at in range(iteration * wanted, (iteration + 1) * wanted):
        epoch, place = divmod(at, count)
        found.append(Permutation(count, f"{seed}/prompts/{epoch}")(place))
    return found


def portion(items: Sequence[Any], part: int, parts: int) -> Sequence[Any]:
    """One of `parts` pieces that differ by at most one item."""
    return items[len(items) * part // parts : len(items) * (part + 1) // parts]


def told(written: Sequence[Rollout], scores: Scores) -> dict[str, float]:
    """What the log says of answers: mean rewards, lengths in tokens with the stop token, and how many ended."""
    judged = [one for one in scores.total if one is not None]
    lengths = [len(one.ids) for one in written]
    ended = [len(one.ids) for one in written if one.end == "stop"]
    found = {
        **({"reward": statistics.fmean(judged)} if judged else {}),
        **scores.means(),
        "answer_tokens": statistics.fmean(lengths),
        "longest_answer": float(max(lengths)),
        "ended": len(ended) / len(written),
        "unjudged": 1 - len(judged) / len(written),
    }
    if ended:
        found["ended_tokens"] = statistics.fmean(ended)
    return found


def told_of_groups(answered: Sequence[Answered], made: Sequence[groups.Group]) -> dict[str, float]:
    """How far the answers to one prompt differ: the mean of their standard deviations, and the share of the judged
    groups in which they do not."""
    known = [[value for value in one.rewards if value is not None] for one in answered]
    deviations = [statistics.stdev(values) for values in known if len(values) > 1]
    judged = [one for one in made if one.judged]
    if not judged:
        return {"even_groups": 1.0}
    return {
        "reward_std": statistics.fmean(deviations),
        "even_groups": sum(one.is_even for one in judged) / len(judged),
    }
