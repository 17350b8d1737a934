"""The batches of PPO: the policy answers some prompts, the answers are judged, and each is learned from a few times.

An iteration is written when its first batch is asked for, so the training loop pulls it like any other data. All of its
state is JSON: a run that is killed between two updates of an iteration goes on with the same answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from torch import Tensor

from matura.align import rollouts
from matura.align.controllers import Adaptive, Controller, Fixed
from matura.align.divergences import k3
from matura.align.episodes import Episode, EpisodeBatch, pack_episodes
from matura.align.experience import Scale, episodes, read
from matura.align.ppo import Clips, Tally, policy_loss, ratios, value_loss
from matura.align.practice import check_heard, drawn, portion, told
from matura.align.rewards import Weighted
from matura.align.rollouts import Rollout
from matura.align.sequences import Reference
from matura.align.value_head import PolicyWithValue
from matura.core.errors import MaturaError
from matura.core.ppo_settings import KlPenalty, Scoring, Updates
from matura.core.preferences import Ranking
from matura.core.rollout_settings import Rollouts
from matura.tokenizer.conversation import Format
from matura.train.order import Permutation

UNMOVED = 1e-4
"""How far a ratio may be from 1 before the first update: rounding, and no more."""


@dataclass(frozen=True)
class Plan:
    """How iterations are made. `prompts` are answered in each."""

    prompts: int
    rollouts: Rollouts
    kl: KlPenalty
    scoring: Scoring
    updates: Updates
    value_coefficient: float
    seed: int

    @property
    def clips(self) -> Clips:
        """How far an update may go."""
        return Clips(self.updates.clip, self.updates.clip, self.updates.value_clip)

    @property
    def controller(self) -> Controller:
        """A new one."""
        if self.kl.target is None:
            return Fixed(self.kl.coefficient)
        return Adaptive(self.kl.coefficient, self.kl.target, self.kl.horizon)

    @property
    def updates_each(self) -> int:
        """Updates of one iteration."""
        return self.updates.epochs * self.updates.minibatches


class Iterations:
    """An endless iterator of `EpisodeBatch`, `updates.accumulate` for each update. Updates that are left out once the
    policy is too far from the rollouts are batches of weight 0, so the step still says which iteration it is."""

    def __init__(
        self,
        model: PolicyWithValue,
        reference: Reference,
        format: Format,
        prompts: Sequence[Ranking],
        rewards: Weighted,
        plan: Plan,
    ) -> None:
        self.model, self.reference, self.format = model, reference, format
        self.prompts, self.rewards, self.plan = prompts, rewards, plan
        self.controller = plan.controller
        self.coefficient = self.controller.coefficient  # of this iteration
        self.scale: Scale | None = None
        self.iteration = 0
        self.given = 0  # batches of this iteration
        self.written = 0  # tokens of all answers
        self.judged: set[str] = set()  # rewards that have judged anything
        self.episodes: list[Episode] = []
        self.left_out = False  # the rest of this iteration
        self.numbers: dict[str, float] = {}  # of this iteration
        self.tally = Tally()  # of the update that is being made

    def __iter__(self) -> Iterator[EpisodeBatch]:
        return self

    def __next__(self) -> EpisodeBatch:
        pieces = self.plan.updates.accumulate
        if self.given in (0, self.plan.updates_each * pieces):
            self._begin()
        update, piece = divmod(self.given, pieces)
        if piece == 0:
            self.left_out, self.tally = self.is_far, Tally()
        self.given += 1
        chosen = [] if self.left_out else self._episodes(update, piece)
        return pack_episodes(chosen, self.model.policy.embed.weight.device, is_fresh=update == 0)

    @property
    def is_far(self) -> bool:
        """Whether the policy has gone so far from the rollouts that the rest of the iteration is left out."""
        limit, moved = self.plan.kl.stop, self.tally.means().get("approx_kl", 0.0)
        return self.left_out or (limit is not None and moved > limit)

    @property
    def mean_tokens(self) -> float:
        """Answer tokens of an average batch, as far as is known."""
        plan = self.plan
        answers = plan.prompts * plan.rollouts.samples
        length = self.written / (self.iteration * answers) if self.iteration else plan.rollouts.max_new_tokens
        return answers * length / (plan.updates.minibatches * plan.updates.accumulate)

    @property
    def epochs(self) -> list[float]:
        """How often the prompts have been answered."""
        return [self.iteration * self.plan.prompts / len(self.prompts)]

    def notes(self) -> dict[str, float]:
        """The numbers of the update that was just made, at the first one of an iteration with those of its answers."""
        found = self.tally.means() | {"iteration": float(self.iteration), "left_out": float(self.left_out)}
        is_first = self.given == self.plan.updates.accumulate
        return found | self.numbers if is_first else found

    def state(self) -> dict[str, Any]:
        """The position, with the answers that are still learned from."""
        is_over = self.given == self.plan.updates_each * self.plan.updates.accumulate
        return {
            "iteration": self.iteration,
            "given": self.given,
            "written": self.written,
            "judged": sorted(self.judged),
            "left_out": self.is_far,
            "controller": self.controller.state(),
            "coefficient": self.coefficient,
            "scale": None if self.scale is None else [self.scale.mean, self.scale.deviation],
            "episodes": [] if is_over else [one.state() for one in self.episodes],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a position that `state` gave."""
        self.iteration, self.given, self.written = state["iteration"], state["given"], state["written"]
        self.judged, self.left_out = set(state["judged"]), state["left_out"]
        self.controller.restore(state["controller"])
        self.coefficient = state["coefficient"]
        self.scale = None if state["scale"] is None else Scale(*state["scale"])
        self.episodes = [Episode.of(one) for one in state["episodes"]]
        self.tally = Tally()

    def _begin(self) -> None:
        """Write and judge the answers of the next iteration."""
        plan = self.plan
        self.iteration, self.given = self.iteration + 1, 0
        self.left_out, self.tally = False, Tally()  # how far the last iteration went says nothing of this one
        chosen = drawn(len(self.prompts), plan.prompts, self.iteration - 1, plan.seed)
        written = rollouts.roll(
            self.model.policy,
            self.format,
            [self.prompts[i] for i in chosen],
            k=plan.rollouts.samples,
            draw=plan.rollouts.draw,
            seed=plan.seed,
            iteration=self.iteration,
            batch=plan.rollouts.batch,
        )
        self.written += sum(len(one.ids) for one in written)
        answers, scores, numbers = self._judge(written)
        if not answers:  # a later iteration: what was learned before is not given up for it
            self.episodes, self.numbers, self.left_out = [], numbers, True
            return
        if self.scale is None:
            self.scale = Scale.of(scores) if plan.scoring.normalise == "start" else Scale()
        self.coefficient = self.controller.coefficient
        found = read(self.model, self.reference, answers, plan.rollouts.temperature)
        numbers["rollout_gap"] = rollouts.agreement(answers, found.logprobs_N, plan.rollouts.temperature)
        self.episodes, more = episodes(
            answers,
            scores,
            found,
            self.coefficient,
            self.scale,
            plan.kl,
            plan.scoring,
            plan.updates,
        )
        self.controller.update(more["answer_kl"], len(answers))
        self.numbers = numbers | more

    def _judge(self, written: Sequence[Rollout]) -> tuple[list[Rollout], list[float], dict[str, float]]:
        """The answers that were judged, with their scores. Raises MaturaError when the first iteration has none, or for
        a reward that stays silent."""
        found = self.rewards([rollouts.completion(one) for one in written])
        self.judged |= found.heard
        check_heard(self.rewards, self.judged, self.iteration)
        kept = [(one, score) for one, score in zip(written, found.total, strict=True) if score is not None]
        if not kept and self.iteration == 1:
            weighted = sorted(part.name for part in self.rewards.parts if part.weight)
            raise MaturaError(
                f"none of {len(written)} answers could be judged by {', '.join(weighted)}, so there is nothing to "
                "learn; look at the facts of the prompts (data.facts), and whether they fit into a reward model"
            )
        return [one for one, _ in kept], [score for _, score in kept], told(written, found)

    def _episodes(self, update: int, piece: int) -> list[Episode]:
        """Those of one piece of an update; the answers to one prompt stay together."""
        updates = self.plan.updates
        groups = [list(group) for _, group in groupby(self.episodes, lambda one: one.prompt_ids)]
        epoch, minibatch = divmod(update, updates.minibatches)
        order = Permutation(len(groups), f"{self.plan.seed}/{self.iteration}/{epoch}")
        minibatch_groups = portion(
            [groups[order(i)] for i in range(len(groups))], minibatch, updates.minibatches
        )
        return [one for group in portion(minibatch_groups, piece, updates.accumulate) for one in group]

    def objective(self, model: PolicyWithValue, batch: EpisodeBatch) -> Tensor:
        """The loss of a batch, summed over the tokens of its answers.

        Raises MaturaError when ratios are not 1 though nothing was updated since the answers were written.
        """
        plan = self.plan
        if not batch.weight:
            return 0.0 * next(p for p in model.parameters() if p.requires_grad).sum()
        found = model.read(batch.answers, plan.rollouts.temperature, entropy=True)
        assert found.entropy_N is not None
        ratio_N = ratios(found.logprobs_N, batch.logprobs_N)
        if batch.is_fresh:
            check_unmoved(ratio_N)
        policy_N = policy_loss(ratio_N, batch.advantages_N, plan.clips)
        value_N = value_loss(found.values_N, batch.values_N, batch.returns_N, plan.clips)
        total_N = policy_N + plan.value_coefficient * value_N - plan.updates.entropy * found.entropy_N
        if plan.kl.place == "loss":
            divergence_N = ratio_N * k3(found.logprobs_N - batch.reference_N)
            total_N = total_N + self.coefficient * divergence_N
        self.tally.add(
            plan.clips,
            ratio_N,
            batch.advantages_N,
            found.values_N - batch.values_N,
            policy_loss=policy_N,
            value_loss=value_N,
            policy_entropy=found.entropy_N,
        )
        return total_N.sum()


def check_unmoved(ratio_N: Tensor) -> None:
    """Raises MaturaError when the ratios are not all 1."""
    furthest = float((ratio_N.detach() - 1).abs().max())
    if not furthest <= UNMOVED:
        raise MaturaError(
            f"before the first update of an iteration a token's probability differs by {furthest:.2g} of itself from "
            f"the rollout's (at most {UNMOVED:g} is rounding): the model that is trained is not the one that wrote"
        )
