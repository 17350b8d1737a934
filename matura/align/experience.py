"""From answers and their scores to episodes: read by policy, value model and reference, rewarded, and compared with
what was expected.

Shape suffixes: N answer tokens end to end, S answers.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from matura.align import divergences, rollouts
from matura.align.advantages import explained_variance, gae, whiten
from matura.align.episodes import Episode
from matura.align.ppo import token_rewards
from matura.align.rollouts import Rollout
from matura.align.sequences import Prompted, Reference, pack_answers
from matura.align.value_head import PolicyWithValue
from matura.core.ppo_settings import KlPenalty, Scoring, Updates

EVEN = 1e-6


class Read(NamedTuple):
    """What policy, reference and value model make of every answer token, and the value after each answer [S]."""

    logprobs_N: Tensor
    reference_N: Tensor
    values_N: Tensor
    after_S: Tensor


@torch.no_grad()
def read(
    model: PolicyWithValue, reference: Reference, answers: Sequence[Rollout], temperature: float
) -> Read:
    """Read all answers; those to one prompt read it once."""
    device = model.policy.embed.weight.device
    parts: list[Read] = []
    for row in rollouts.rows(answers, rollouts.ROW):
        # One token more after each answer, so that its last token is read too: the value behind it is asked for.
        longer = [Prompted(group[0].prompt_ids, tuple((*one.ids, 0) for one in group)) for group in row]
        batch = pack_answers(longer, device)
        found = model.read(batch, temperature)
        last_S = torch.tensor(batch.counts, device=device).cumsum(0) - 1
        real_N = torch.ones(len(batch.targets_N), dtype=torch.bool, device=device)
        real_N[last_S] = False
        parts.append(
            Read(
                found.logprobs_N[real_N],
                reference(batch)[real_N],
                found.values_N[real_N],
                found.values_N[last_S],
            )
        )
    return Read(*(torch.cat(list(each)) for each in zip(*parts, strict=True)))


@dataclass(frozen=True)
class Scale:
    """What scores are measured in: the mean and standard deviation of the first iteration's."""

    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def of(cls, scores: Sequence[float]) -> Scale:
        """Equal scores are only moved."""
        deviation = statistics.pstdev(scores)
        return cls(statistics.fmean(scores), deviation if deviation > EVEN else 1.0)


def shaped(
    scores: Sequence[float], answers: Sequence[Rollout], scoring: Scoring, scale: Scale
) -> list[float]:
    """What the last token of every answer is rewarded with. An answer that was cut off and is to be bootstrapped has
    no score of its own."""
    found = []
    for score, one in zip(scores, answers, strict=True):
        is_cut = one.end == "length"
        known = 0.0 if is_cut and scoring.cut == "bootstrap" else (score - scale.mean) / scale.deviation
        found.append(known - scoring.missing_stop * is_cut)
    return found


def episodes(
    answers: Sequence[Rollout],
    scores: Sequence[float],
    found: Read,
    coefficient: float,
    scale: Scale,
    kl: KlPenalty,
    scoring: Scoring,
    updates: Updates,
) -> tuple[list[Episode], dict[str, float]]:
    """Answers with advantages that are whitened over all of them, and the numbers of the iteration for the log."""
    lengths = [len(one.ids) for one in answers]
    ends = shaped(scores, answers, scoring, scale)
    drift_N = found.logprobs_N - found.reference_N
    rewards_N = token_rewards(ends, drift_N, lengths, coefficient if kl.place == "reward" else 0.0)
    bootstrap = scoring.cut == "bootstrap"
    after = [
        value if bootstrap and one.end == "length" else 0.0
        for one, value in zip(answers, found.after_S.tolist(), strict=True)
    ]
    advantages_N, returns_N = gae(
        rewards_N, found.values_N, lengths, gamma=updates.gamma, lam=updates.lam, after_S=after
    )
    tracks = (found.logprobs_N, found.reference_N, found.values_N, whiten(advantages_N), returns_N)
    numbers = _told(answers, scores, found, drift_N, rewards_N, returns_N, coefficient)
    numbers["advantage_std"] = float(advantages_N.double().std(correction=0))
    split = [[part.tolist() for part in track_N.split(lengths)] for track_N in tracks]
    return [
        Episode(one.prompt_ids, one.ids, *(tuple(track) for track in its))
        for one, *its in zip(answers, *split, strict=True)
    ], numbers


def _told(
    answers: Sequence[Rollout],
    scores: Sequence[float],
    found: Read,
    drift_N: Tensor,
    rewards_N: Tensor,
    returns_N: Tensor,
    coefficient: float,
) -> dict[str, float]:
    count = len(answers)
    answer_kl = float(drift_N.double().sum()) / count
    return {
        "reward_std": statistics.pstdev(scores),
        "reward_with_kl": float(rewards_N.double().sum()) / count,
        "kl_penalty": coefficient * answer_kl,
        "kl_coefficient": coefficient,
        "kl": float(drift_N.double().mean()),
        "kl_k3": float(divergences.k3(drift_N.double()).mean()),
        "answer_kl": answer_kl,
        "value": float(found.values_N.double().mean()),
        "explained_variance": explained_variance(found.values_N, returns_N),
    }
